"""Random weights of the structure of RAM and its LoRA DAPE: nothing has to be downloaded."""

import torch
from torch import Tensor

from coz.networks.ram_tagger import RAMTagger, TaggerSizes

SMALL = TaggerSizes(
    width=8,
    depths=(2, 2, 2, 2),
    heads=(1, 2, 4, 8),
    tagging_width=32,
    tagging_inner=64,
    tagging_layers=2,
)
"""RAM with all of its tags; its image encoder is 192 wide and 24 blocks deep, its head 768 wide."""

RANK = 8


def ram(sizes: TaggerSizes = SMALL, seed: int = 0) -> dict[str, Tensor]:
    """The weights of a `RAMTagger` in float32, exact in float16; about half of the tags are found."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in RAMTagger(sizes).state_dict().items()}
    weights = {}
    for name, shape in shapes.items():
        scale = 1.5 * shape[1:].numel() ** -0.5 if len(shape) > 1 else 0.02
        # Else what all tags see of the image outweighs what the tags are.
        scale *= 20 if name == "label_embed" else 0.2 if "attention.output.dense" in name else 1
        weight = torch.randn(shape, generator=generator) * scale
        is_norm = "norm" in name.lower() and name.endswith("weight") and len(shape) == 1
        weights[name] = (weight + is_norm).half().float()
    weights["fc.bias"].fill_(0.875)
    return weights


def as_published(weights: dict[str, Tensor]) -> dict:
    """The content of RAM's file around these weights, with tensors that nobody needs."""
    generator = torch.Generator().manual_seed(1)
    unused = {
        "visual_encoder.layers.0.blocks.1.attn.attn_mask": torch.zeros(64, 144, 144),
        "visual_encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(
            144, 144
        ).long(),
        "tag_encoder.embeddings.word_embeddings.weight": torch.randn(50, 32, generator=generator),
        "text_decoder.cls.predictions.bias": torch.zeros(50),
    }
    state = {i: {"exp_avg": torch.zeros(9)} for i in range(3)}
    return {
        "model": weights | unused,
        "optimizer": {"state": state, "param_groups": [{"lr": 1e-5}]},
        "config": {"vit": "swin_l", "image_size": 384},
        "epoch": 4,
    }


def dape(weights: dict[str, Tensor], seed: int = 2) -> dict[str, Tensor]:
    """A LoRA for these weights with the names and shapes of DAPE's file."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, weight in weights.items():
        layer = name.removesuffix(".weight")
        rows, columns = weight.shape if weight.ndim == 2 else (0, 0)
        if layer.endswith(".attn.qkv"):
            shapes = (2 * RANK, columns), (2 * columns, RANK)
        elif layer.endswith((".crossattention.self.query", ".crossattention.self.key")):
            shapes = (RANK, columns), (rows, RANK)
        else:
            continue
        for end, shape in zip("AB", shapes, strict=True):
            factors[f"{layer}.lora_{end}"] = torch.randn(shape, generator=generator) * 0.3
    for end, shape in zip("AB", ((RANK, 32), (32, RANK)), strict=True):
        layer = "tag_encoder.encoder.layer.0.attention.self.query"
        factors[f"{layer}.lora_{end}"] = torch.zeros(shape)
    return factors
