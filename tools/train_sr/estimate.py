"""Measure the memory that a training needs, on networks of the real size that have shapes but no values.

One step of the training itself runs, and the bytes of all tensors that live at the same time are counted.
What is not counted: the working memory of kernels, gaps between tensors, and the score and the
vision-language model of cross-scale training.
"""

import json
import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, SD3Transformer2DModel
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchmetrics.functional.image.lpips import _LPIPS
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from .config import CrossScaleConfig, TrainingConfig
from .crops import CropOptions
from .cross_scale import CrossScale
from .distil import Distillation
from .memory import advise
from .network import OneStepNetwork
from .prepare import OPTIONS_FILE
from .sd3 import DTYPES
from .second_prompts import TextsOfTwoZooms
from .task import Task

GIB = 2**30

CUDA_BYTES = int(0.6 * GIB)
"""Memory that CUDA itself uses. This is assumed, because no tensor shows it."""

GENERATOR_RANK = 4
"""Rank of the SR LoRA that cross-scale training starts from."""
TEXT_SHAPE, POOLED_SHAPE = (589, 4096), (2048,)

SD3_MEDIUM = {
    "num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}  # fmt: skip
SD3_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 16,
    "use_quant_conv": False, "use_post_quant_conv": False,
    "scaling_factor": 1.5305, "shift_factor": 0.0609,
}  # fmt: skip
CLIP_L, CLIP_G = (
    CLIPTextConfig(hidden_size=w, intermediate_size=4 * w, num_hidden_layers=n, projection_dim=w)
    for w, n in ((768, 12), (1280, 32))
)
T5_XXL = T5Config(
    d_model=4096, d_ff=10240, d_kv=64, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
)
"""The sizes of SD3-medium. A model in a folder is measured with its own."""


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside it, as long as they live.

    Args:
        others: Tensors that are not counted, nor are views of them.
    """

    def __init__(self, others: Iterable[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.storages = {tensor.untyped_storage()._cdata for tensor in others}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.device.type == "meta":
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.storages:
            self.storages.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.storages.discard(key)
        self.live -= size


@contextmanager
def fuse_attention() -> Iterator[None]:
    """Use attention that keeps no matrix of all pairs, as on a GPU. For meta tensors torch would not choose it."""
    usual = F.scaled_dot_product_attention

    def attend(query: Tensor, key: Tensor, value: Tensor, *_, **__) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value)[0]

    F.scaled_dot_product_attention = attend
    try:
        yield
    finally:
        F.scaled_dot_product_attention = usual


def print_estimate(config: TrainingConfig, card_gib: float | None) -> None:
    """Print the memory of a training, and refuse one that does not fit the card.

    Args:
        card_gib: Memory of the card; by default that of the GPU here, if there is one.
    """
    parts = {name: size / GIB for name, size in estimate(config).items()}
    total = sum(parts.values())
    for name, size in [*parts.items(), ("together", total)]:
        print(f"{name:32} {size:6.2f} GiB")
    if card_gib is None and torch.cuda.is_available():
        card_gib = torch.cuda.get_device_properties(0).total_memory / GIB
    if card_gib is not None and total > card_gib:
        raise ValueError(
            f"the training needs {total:.1f} GiB, but the card has {card_gib:.1f} GiB: {advise(config)}"
        )


def estimate(config: TrainingConfig) -> dict[str, int]:
    """Measure the memory of a training on the crops in its folder, or of 512 pixels if there are none yet.

    Returns:
        Parts with their bytes on the card. The sum is the peak.
    """
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # PEFT warns of weights without values
        transformer, vae = build_networks(config)
        parts = {"SD3 transformer": count_bytes(transformer), "VAE": count_bytes(vae)}
        lpips = _LPIPS(net="vgg", pretrained=False, pnet_rand=True).to("meta").requires_grad_(False)
        parts["LPIPS VGG16"] = count_bytes(lpips)
        if not config.text_cached:
            parts["text encoders"] = count_text_encoder_bytes(config.model)
        network = OneStepNetwork(transformer, vae, config.latent_shift, config.checkpointing)
        stored = config.model_copy(update={"text_cached": True, "vlm": ""})
        given = network, lpips, TextsOfTwoZooms(stored, torch.device("meta"))
        if isinstance(config, CrossScaleConfig):
            task = CrossScale(config, *given, GENERATOR_RANK)
        else:
            task = Distillation(config, *given, torch.empty(1000))
    file = config.data / OPTIONS_FILE
    side = json.loads(file.read_text("utf-8"))["size"] if file.is_file() else CropOptions().size
    return parts | measure_step(task, config.batch, side) | {"CUDA (assumed)": CUDA_BYTES}


def build_networks(config: TrainingConfig) -> tuple[SD3Transformer2DModel, AutoencoderKL]:
    """Build networks of the sizes in the config's folders, or of SD3-medium, on the default device."""
    is_local = Path(config.model).is_dir()
    sizes, vae_sizes = SD3_MEDIUM, SD3_VAE
    if is_local:
        sizes = SD3Transformer2DModel.load_config(config.model, subfolder="transformer")
    if config.vae or is_local:
        folder = None if config.vae else "vae"
        vae_sizes = AutoencoderKL.load_config(config.vae or config.model, subfolder=folder)
    networks = SD3Transformer2DModel.from_config(sizes), AutoencoderKL.from_config(vae_sizes)
    for network in networks:
        nn.Module.to(network, DTYPES[config.precision])  # diffusers' own method warns
    return networks


def list_tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def count_bytes(network: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in list_tensors(network))


def count_text_encoder_bytes(model: str) -> int:
    """Count the bytes of the three text encoders in half precision."""
    total, clip = 0, CLIPTextModelWithProjection
    for i, (kind, sizes) in enumerate(((clip, CLIP_L), (clip, CLIP_G), (T5EncoderModel, T5_XXL))):
        path = Path(model, f"text_encoder_{i + 1}" if i else "text_encoder")
        sizes = type(sizes).from_pretrained(path) if path.is_dir() else sizes
        total += count_bytes(kind(sizes).half())
    return total


def measure_step(task: Task, crops: int, side: int) -> dict[str, int]:
    """Measure the second batch of a step: the first one's gradients and AdamW's averages already exist.

    Returns:
        Bytes of the adapters with the optimizers, of what lives at the end of the forward pass, and of what
        else lives at the peak.
    """
    weights = task.network.list_parameters(*task.adapters)
    adapters = sum(weight.nbytes for weight in task.network.get_loras().values())
    adapters += 3 * sum(weight.nbytes for weight in weights)  # one gradient and two averages
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    image = (3, side, side)
    shapes = {"low": image, "high": image, "text": TEXT_SHAPE, "pooled": POOLED_SHAPE}
    batch = {n: torch.empty(crops, *shape, device="meta") for n, shape in shapes.items()}
    kept = []

    def backward(loss: Tensor) -> None:
        kept.append(memory.live)
        loss.backward()

    networks = task.network.transformer, task.network.vae, task.lpips
    others = [tensor for network in networks for tensor in list_tensors(network)]
    others += [weight.grad for weight in weights]
    with fuse_attention(), LiveMemory(others) as memory:
        task.compute_gradients(batch, torch.Generator(), backward)
    return {
        "adapters, gradients and AdamW": adapters,
        "kept for the gradients": max(kept),
        "temporary": memory.peak - max(kept),
    }
