"""Convert Chain-of-Zoom's SR LoRA and VAE encoder to standard keys."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .lora import (
    PEFT_DEFAULT_ALPHA,
    StandardKeyWeights,
    find_common_value,
    is_weight,
    list_few,
    merge_lora_with_default_alpha,
    pair_factors,
)
from .vae import COMFYUI_VAE_NAME_PATTERN, rename_vae_weights

SD3_CHANNELS_PER_BLOCK = 64
"""SD3's width is 64 times its number of blocks. Source: ComfyUI comfy/utils.py, mmdit_to_diffusers."""

ENCODER_PARTS = ["encoder.conv_in", "encoder.mid.attn_1.q", "encoder.norm_out", "encoder.conv_out"]


def convert_coz_lora(tensors: list[Any]) -> StandardKeyWeights:
    """Convert Chain-of-Zoom's SR LoRA, a list of matrices [up, down, up, down, ...].

    Args:
        tensors: up (6 * width, r) and down (r, width) for each AdaLayerNormZero of an SD3
            transformer: for each block its image stream, then its text stream, which the last
            block does not have.

    Returns:
        LoRAs of the layers `transformer.transformer_blocks.{i}.norm1[_context].linear`, alpha = r.

    Raises:
        ValueError: If the list does not fit an SD3 transformer.

    Source: Chain-of-Zoom osediff_sd3.py, inject_lora (scale=1.0).
    """
    matrices = [t for t in tensors if is_weight(t) and t.ndim == 2 and t.numel()]
    if len(tensors) < 2 or len(matrices) < len(tensors):
        raise ValueError(
            "expected the Chain-of-Zoom SR LoRA, a list of matrices, but found a list of "
            f"{len(tensors)} entries, {len(matrices)} of them matrices; take model_20001.pkl"
        )
    rank, width = tensors[1].shape
    blocks = width // SD3_CHANNELS_PER_BLOCK
    if len(tensors) != 2 * (2 * blocks - 1) or width % SD3_CHANNELS_PER_BLOCK:
        raise ValueError(
            f"expected {max(0, 2 * (2 * blocks - 1))} matrices for an SD3 transformer of width "
            f"{width} (SD3-medium: 94 for width 1536), but found {len(tensors)}; take "
            "model_20001.pkl of Chain-of-Zoom"
        )
    for i, tensor in enumerate(tensors):
        expected = (rank, width) if i % 2 else (6 * width, rank)
        if tuple(tensor.shape) != expected:
            raise ValueError(
                f"expected matrix {i} of the Chain-of-Zoom SR LoRA to be {expected}, but found "
                f"{tuple(tensor.shape)}; take model_20001.pkl"
            )
    keyed: dict[str, Tensor] = {}
    for i in range(0, len(tensors), 2):
        block, is_context = divmod(i // 2, 2)
        norm = "norm1_context" if is_context else "norm1"
        layer = f"transformer.transformer_blocks.{block}.{norm}.linear"
        # They were saved as trained parameters and may still require gradients.
        keyed[f"{layer}.lora_A.weight"] = tensors[i + 1].detach()
        keyed[f"{layer}.lora_B.weight"] = tensors[i].detach()
        keyed[f"{layer}.alpha"] = torch.tensor(float(rank))
    return StandardKeyWeights("coz lora", keyed, rank, float(rank), "reference")


def convert_coz_vae_encoder(tensors: Mapping[str, Tensor]) -> StandardKeyWeights:
    """Merge the LoRA of Chain-of-Zoom's VAE encoder, scaled by 8 / r, and use ComfyUI's names.

    Args:
        tensors: State dict of a diffusers encoder with a PEFT adapter, any float dtype.

    Returns:
        The whole encoder. Merged weights are float32, the others keep their dtype.

    Raises:
        ValueError: If a part of the encoder is missing, or a weight belongs to something else.

    Source: Chain-of-Zoom osediff_sd3.py, inject_lora_vae (LoraConfig with r and no alpha).
    """
    pairs, rest = pair_factors(tensors)
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in rest.items()}
    for layer, pair in pairs.items():
        plain[f"{layer}.weight"] = merge_lora_with_default_alpha(layer, plain, *pair)
    encoder = rename_vae_weights({f"encoder.{name}": tensor for name, tensor in plain.items()})
    lacking = [part for part in ENCODER_PARTS if f"{part}.weight" not in encoder]
    strange = [name for name in encoder if not COMFYUI_VAE_NAME_PATTERN.fullmatch(name)]
    if lacking or strange or not pairs:
        raise ValueError(
            "expected the whole VAE encoder of Chain-of-Zoom with its LoRA, but found "
            f"{len(pairs)} LoRA layers, other weights: {list_few(strange)}, missing: {list_few(lacking)}; "
            "take vae_encoder_20001.pt"
        )
    rank = find_common_value(down.shape[0] for down, _ in pairs.values())
    return StandardKeyWeights("coz vae encoder", encoder, rank, PEFT_DEFAULT_ALPHA)
