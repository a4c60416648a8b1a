"""RAM (Recognize Anything), which rates how well each of 4585 tags fits an image.

Youcai Zhang, Xinyu Huang et al.: "Recognize Anything: A Strong Image Tagging Model", arXiv
2306.03514. The network has an image encoder (Swin-L) and a tagging head of two cross-attention layers.
The modules are named like the keys in RAM's checkpoint, so that no table of keys is needed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGE_SIDE = 384
PATCH_SIDE = 4
WINDOW_SIDE = 12
"""Side of a window of the image encoder's attention, in tokens."""
EMBEDDING_WIDTH = 512
"""Width of the embeddings of the image and of the tags."""
TAGGING_ATTENTION_HEADS = 4
ATTENTION_MASK_BIAS = -100  # excludes a pair of tokens, as in RAM
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class TaggerSizes(NamedTuple):
    """The sizes of the network. The defaults are those of ram_swin_large_14m."""

    tags: int = 4585
    width: int = 192
    """Channels of the image encoder's first stage; each stage has twice those of the one before."""
    depths: tuple[int, ...] = (2, 2, 18, 2)
    """Number of blocks of each stage."""
    heads: tuple[int, ...] = (6, 12, 24, 48)
    """Number of attention heads of each stage."""
    tagging_width: int = 768
    """Channels of the tagging head."""
    tagging_inner: int = 3072
    """Channels inside the MLPs of the tagging head."""
    tagging_layers: int = 2


class WindowAttention(nn.Module):
    """Attention within windows of tokens, which may be shifted."""

    def __init__(self, width: int, heads: int, ops: Any):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = ops.Linear(width, 3 * width), ops.Linear(width, width)
        table = torch.zeros((2 * WINDOW_SIDE - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(table)

    def forward(self, x: Tensor, shift: int) -> Tensor:
        """Compute attention within windows of x (B, H, W, C) that are shifted by ``shift`` tokens."""
        (b, h, w, c), n = x.shape, WINDOW_SIDE
        x = x.roll((-shift, -shift), (1, 2)).view(b, h // n, n, w // n, n, c)
        x = x.transpose(2, 3).reshape(-1, n * n, c)
        qkv = self.qkv(x).view(-1, n * n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mask = self._make_bias().to(q)[None]
        if shift:
            separated = _find_separated(h, w, shift, q.device).to(q) * ATTENTION_MASK_BIAS
            mask = (mask + separated[:, None]).repeat(b, 1, 1, 1)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = self.proj(x.transpose(1, 2).reshape(-1, n * n, c))
        x = x.view(b, h // n, w // n, n, n, c).transpose(2, 3).reshape(b, h, w, c)
        return x.roll((shift, shift), (1, 2))

    def _make_bias(self) -> Tensor:
        """Return the relative position bias (heads, n * n, n * n) of each query and key of a window."""
        table, n = self.relative_position_bias_table, WINDOW_SIDE
        line = torch.arange(n, device=table.device)
        grid = torch.cartesian_prod(line, line)
        offset = grid[:, None] - grid[None] + n - 1
        return table[offset[..., 0] * (2 * n - 1) + offset[..., 1]].permute(2, 0, 1)


def _find_separated(h: int, w: int, shift: int, device: torch.device) -> Tensor:
    """Mask the token pairs of shifted windows that come from opposite edges: (windows, n * n, n * n)."""
    n = WINDOW_SIDE

    def number_regions(size: int) -> Tensor:
        place = torch.arange(size, device=device)
        return (place >= size - n).int() + (place >= size - shift).int()

    area = (number_regions(h)[:, None] * 3 + number_regions(w)).view(h // n, n, w // n, n)
    area = area.transpose(1, 2).reshape(-1, n * n)
    return area[:, None] != area[:, :, None]


class SwinBlock(nn.Module):
    """Attention within windows, and an MLP. Each normalizes its input first."""

    def __init__(self, width: int, heads: int, shift: int, ops: Any):
        super().__init__()
        self.shift = shift
        self.norm1, self.norm2 = ops.LayerNorm(width), ops.LayerNorm(width)
        self.attn = WindowAttention(width, heads, ops)
        self.mlp = nn.ModuleDict(
            {"fc1": ops.Linear(width, 4 * width), "fc2": ops.Linear(4 * width, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), self.shift)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class SwinStage(nn.Module):
    """Several blocks and, except in the last stage, a layer that merges each 2 x 2 tokens into one."""

    def __init__(self, width: int, depth: int, heads: int, side: int, merges: bool, ops: Any):
        super().__init__()
        # The last stage is a single window, so it has nothing to shift.
        shifts = [WINDOW_SIDE // 2 if i % 2 and side > WINDOW_SIDE else 0 for i in range(depth)]
        self.blocks = nn.ModuleList([SwinBlock(width, heads, shift, ops) for shift in shifts])
        self.downsample = None
        if merges:
            reduction = ops.Linear(4 * width, 2 * width, bias=False)
            self.downsample = nn.ModuleDict(
                {"norm": ops.LayerNorm(4 * width), "reduction": reduction}
            )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        if self.downsample is not None:
            # RAM joins the four tokens in the order (row, column) 00, 10, 01, 11.
            x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)
            x = self.downsample["reduction"](self.downsample["norm"](x))
        return x


class Swin(nn.Module):
    """The image encoder. It turns pixels (B, 3, 384, 384) into 144 tokens with their mean in front, (B, 145, C)."""

    def __init__(self, sizes: TaggerSizes, ops: Any):
        super().__init__()
        width, side, last = sizes.width, IMAGE_SIDE // PATCH_SIDE, len(sizes.depths) - 1
        projection = ops.Conv2d(3, width, PATCH_SIDE, PATCH_SIDE)
        self.patch_embed = nn.ModuleDict({"proj": projection, "norm": ops.LayerNorm(width)})
        self.layers = nn.ModuleList(
            [
                SwinStage(width << i, depth, heads, side >> i, i < last, ops)
                for i, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True))
            ]
        )
        self.norm = ops.LayerNorm(width << last)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch_embed["norm"](self.patch_embed["proj"](pixels).permute(0, 2, 3, 1))
        for stage in self.layers:
            x = stage(x)
        x = self.norm(x).flatten(1, 2)
        return torch.cat([x.mean(1, keepdim=True), x], 1)


class TagAttention(nn.Module):
    """Attention of the tags to the tokens of the image."""

    def __init__(self, width: int, ops: Any):
        super().__init__()
        self.query = ops.Linear(width, width)
        self.key = ops.Linear(EMBEDDING_WIDTH, width)
        self.value = ops.Linear(EMBEDDING_WIDTH, width)

    def forward(self, tags: Tensor, image: Tensor) -> Tensor:
        projected = self.query(tags), self.key(image), self.value(image)
        q, k, v = (
            x.view(*x.shape[:2], TAGGING_ATTENTION_HEADS, -1).transpose(1, 2) for x in projected
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class TagOutput(nn.Module):
    """A layer whose result is added to the tags and normalized."""

    def __init__(self, inner: int, width: int, ops: Any):
        super().__init__()
        self.dense = ops.Linear(inner, width)
        self.LayerNorm = ops.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, tags: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + tags)


class TagLayer(nn.Module):
    """Attention of the tags to the image, and an MLP."""

    def __init__(self, width: int, inner: int, ops: Any):
        super().__init__()
        self.crossattention = nn.ModuleDict(
            {"self": TagAttention(width, ops), "output": TagOutput(width, width, ops)}
        )
        self.intermediate = nn.ModuleDict({"dense": ops.Linear(width, inner)})
        self.output = TagOutput(inner, width, ops)

    def forward(self, tags: Tensor, image: Tensor) -> Tensor:
        attention = self.crossattention["self"](tags, image)
        tags = self.crossattention["output"](attention, tags)
        return self.output(F.gelu(self.intermediate["dense"](tags)), tags)


class TagEncoder(nn.Module):
    """The tagging head."""

    def __init__(self, sizes: TaggerSizes, ops: Any):
        super().__init__()
        width, inner = sizes.tagging_width, sizes.tagging_inner
        self.layer = nn.ModuleList(
            [TagLayer(width, inner, ops) for _ in range(sizes.tagging_layers)]
        )

    def forward(self, tags: Tensor, image: Tensor) -> Tensor:
        for layer in self.layer:
            tags = layer(tags, image)
        return tags


class RAMTagger(nn.Module):
    """The whole network, created with weights that are not meaningful yet.

    Args:
        sizes: Those of the weights, from `read_tagger_sizes`.
        ops: Holds the classes Linear, Conv2d and LayerNorm. ComfyUI's `comfy.ops.manual_cast` computes
            in the dtype and on the device of the image, wherever the weights are.
    """

    def __init__(self, sizes: TaggerSizes | None = None, ops: Any = nn):
        super().__init__()
        sizes = sizes or TaggerSizes()
        image_width = sizes.width << len(sizes.depths) - 1
        self.visual_encoder = Swin(sizes, ops)
        self.image_proj = ops.Linear(image_width, EMBEDDING_WIDTH)
        self.label_embed = nn.Parameter(torch.zeros(sizes.tags, EMBEDDING_WIDTH))
        self.wordvec_proj = ops.Linear(EMBEDDING_WIDTH, sizes.tagging_width)
        self.fc = ops.Linear(sizes.tagging_width, 1)
        self.tagging_head = nn.ModuleDict({"encoder": TagEncoder(sizes, ops)})
        self.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Rate each tag for each image.

        Args:
            pixels: (B, 3, 384, 384) of `make_tagger_input`.

        Returns:
            Logits (B, tags).
        """
        image = self.image_proj(self.visual_encoder(pixels))
        tags = F.relu(self.wordvec_proj(self.label_embed.to(image)))
        tags = self.tagging_head["encoder"](tags.expand(len(image), -1, -1), image)
        return self.fc(tags)[..., 0]


def make_tagger_input(image: Tensor) -> Tensor:
    """Resize images (B, 3, H, W) in [0, 1] to 384 x 384, whatever their shape, and normalize them.

    Source: Chain-of-Zoom inference_coz.py, ram_transforms.
    """
    size = IMAGE_SIDE, IMAGE_SIDE
    image = F.interpolate(image, size, mode="bilinear", antialias=True)
    mean, deviation = (
        image.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_DEVIATION)
    )
    return (image - mean) / deviation


def read_tagger_sizes(weights: Mapping[str, Tensor]) -> TaggerSizes:
    """Read the sizes of the network from its weights.

    Raises:
        KeyError: If a weight that shows a size is missing.
    """

    def count(pattern: str) -> int:
        return len({found[1] for name in weights if (found := re.match(pattern, name))})

    stages = range(count(r"visual_encoder\.layers\.(\d+)\."))
    table = "visual_encoder.layers.{}.blocks.0.attn.relative_position_bias_table"
    inner = weights["tagging_head.encoder.layer.0.intermediate.dense.weight"]
    return TaggerSizes(
        tags=len(weights["label_embed"]),
        width=len(weights["visual_encoder.patch_embed.norm.weight"]),
        depths=tuple(count(rf"visual_encoder\.layers\.{i}\.blocks\.(\d+)\.") for i in stages),
        heads=tuple(weights[table.format(i)].shape[-1] for i in stages),
        tagging_width=inner.shape[-1],
        tagging_inner=len(inner),
        tagging_layers=count(r"tagging_head\.encoder\.layer\.(\d+)\."),
    )


def read_tag_list() -> tuple[list[str], Tensor]:
    """Return the names of the 4585 tags in the order of the logits, and the threshold of each."""
    folder = Path(__file__).parent
    names = (folder / "ram_tag_list.txt").read_text("utf-8").splitlines()
    thresholds = (folder / "ram_tag_list_threshold.txt").read_text("utf-8").split()
    return names, torch.tensor([float(threshold) for threshold in thresholds])
