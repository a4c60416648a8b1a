"""Convert OSEDiff's weight file to standard keys."""

from collections.abc import Mapping
from typing import Any

import torch

from .lora import (
    CONV_IN_KEYS,
    PEFT_DEFAULT_ALPHA,
    VAE_LORA_PREFIX,
    StandardKeyWeights,
    find_common_value,
    is_state_dict,
    list_few,
    merge_lora_with_default_alpha,
    pair_factors,
)
from .vae import COMFYUI_VAE_NAME_PATTERN, rename_vae_weight


def convert_osediff(content: Mapping[str, Any]) -> StandardKeyWeights:
    """Convert OSEDiff's weights: LoRAs for SD2.1's UNet and VAE, scaled by 8 / r, and a trained conv_in.

    conv_in also has a LoRA. It is merged here, as ComfyUI's loader applies one patch per weight.

    Raises:
        ValueError: If a part is missing or damaged.

    Source: OSEDiff osediff.py, load_ckpt: three adapters for different layers.
    """
    unet, vae = content.get("state_dict_unet"), content.get("state_dict_vae")
    if not is_state_dict(unet) or not is_state_dict(vae):
        raise ValueError(
            "expected OSEDiff's state_dict_unet and state_dict_vae, two dicts of tensors, but "
            f"found {type(unet).__name__} and {type(vae).__name__}; take osediff.pkl"
        )
    pairs, rest = pair_factors(unet)
    base = {name.replace(".base_layer.", "."): tensor for name, tensor in rest.items()}
    if not pairs or base.keys() != {"conv_in.weight", "conv_in.bias"}:
        raise ValueError(
            "expected OSEDiff's UNet to hold LoRA layers, conv_in.weight and conv_in.bias, but "
            f"found {len(pairs)} LoRA layers and {list_few(base)}; take osediff.pkl"
        )
    if "conv_in" in pairs:
        base["conv_in.weight"] = merge_lora_with_default_alpha(
            "conv_in", base, *pairs.pop("conv_in")
        )
    weight, bias = base["conv_in.weight"], base["conv_in.bias"]
    keyed = dict(zip(CONV_IN_KEYS, [weight, bias], strict=True))
    vae_pairs, rest = pair_factors(vae)
    vae_layers = {
        rename_vae_weight(f"{name}.weight").removesuffix(".weight"): pair
        for name, pair in vae_pairs.items()
    }
    strange = [
        *rest,
        *(n for n in vae_layers if not COMFYUI_VAE_NAME_PATTERN.fullmatch(f"{n}.weight")),
    ]
    if strange or not vae_pairs:
        raise ValueError(
            f"expected OSEDiff's VAE part to hold LoRA layers, but found {len(vae_pairs)} and other "
            f"weights: {list_few(strange)}; take osediff.pkl"
        )
    layers = {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in pairs.items()}
    layers |= {VAE_LORA_PREFIX + name: pair for name, pair in vae_layers.items()}
    for layer, (down, up) in layers.items():
        keyed[f"{layer}.lora_down.weight"] = down
        keyed[f"{layer}.lora_up.weight"] = up
        keyed[f"{layer}.alpha"] = torch.tensor(PEFT_DEFAULT_ALPHA)
    rank = find_common_value(down.shape[0] for down, _ in layers.values())
    return StandardKeyWeights("osediff", keyed, rank, PEFT_DEFAULT_ALPHA)
