"""Name the weights of LoRA files by standard keys, those of ComfyUI's own loaders.

This works on dicts. `coz.weights.read` reads the files and adds their names to the errors raised here.
"""

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, cast

import torch
from torch import Tensor

from ..latent import LatentShift
from .vae import COMFYUI_VAE_NAME_PATTERN, rename_vae_weights

T = TypeVar("T")
Kind = Literal["coz lora", "coz vae encoder", "osediff", "peft lora", "lora", "dape", "ram"]

PEFT_DEFAULT_ALPHA = 8.0
"""Default of peft's LoraConfig(lora_alpha=8): Chain-of-Zoom and OSEDiff set only r."""

CONV_IN_KEYS = {
    "diffusion_model.input_blocks.0.0.set_weight": "diffusion_model.input_blocks.0.0.weight",
    "diffusion_model.input_blocks.0.0.bias.set_weight": "diffusion_model.input_blocks.0.0.bias",
}
"""Key of a tensor in a LoRA file that replaces a whole weight -> key of that weight. Source: ComfyUI
comfy/lora.py, load_lora."""

VAE_LORA_PREFIX = "vae."
"""Prefix of the layers of a LoRA for the VAE, which ComfyUI's own loaders do not read."""

LORA_FACTOR = re.compile(r"(.+)\.lora_(A|B|down|up)(?:\.\w+)?\.weight")


class StandardKeyWeights(NamedTuple):
    """The weights of a file under standard keys, as in a file written by tools/convert.py."""

    kind: Kind
    tensors: dict[str, Tensor]
    """Keys of ComfyUI's LoRA loader. `encoder.`... are VAE weights under ComfyUI's names; `vae.`... is
    a LoRA for the VAE. The kinds "ram" and "dape" use the layer names of RAM."""
    rank: int | None
    alpha: float | None
    """The LoRA is scaled by alpha / rank. None if its layers differ."""
    latent_shift: LatentShift | None = None
    """The latent convention that the weights need, if it is known."""


class SRWeights(NamedTuple):
    """The changes that a weight file makes to a diffusion model and its VAE."""

    kind: Kind
    lora: dict[str, Tensor]
    """Keys of ComfyUI's `load_lora`, with an `.alpha` for each layer; for kind "lora" as in the file."""
    replacements: dict[str, Tensor]
    """Diffusion-model weights that replace the base's, under ComfyUI's names."""
    vae: dict[str, Tensor]
    """VAE weights that replace the base's, under ComfyUI's names."""
    vae_diff: dict[str, Tensor]
    """Float32 changes to add to VAE weights, under ComfyUI's names."""
    rank: int | None
    alpha: float | None
    """The LoRA is scaled by alpha / rank. None if its layers differ."""
    latent_shift: LatentShift | None


def split_weights(keyed: StandardKeyWeights) -> SRWeights:
    """Split standard keys into those of the diffusion model and those of the VAE."""
    vae: dict[str, Tensor] = {}
    vae_lora: dict[str, Tensor] = {}
    lora: dict[str, Tensor] = {}
    replacements: dict[str, Tensor] = {}
    for name, tensor in keyed.tensors.items():
        if keyed.kind == "lora":
            lora[name] = tensor
        elif name in CONV_IN_KEYS:
            replacements[CONV_IN_KEYS[name]] = tensor
        elif name.startswith(VAE_LORA_PREFIX):
            vae_lora[name.removeprefix(VAE_LORA_PREFIX)] = tensor
        elif COMFYUI_VAE_NAME_PATTERN.fullmatch(name):
            vae[name] = tensor
        else:
            lora[name] = tensor
    pairs, alphas = pair_factors(vae_lora)
    vae_diff = {
        f"{layer}.weight": float(alphas[f"{layer}.alpha"])
        / down.shape[0]
        * _multiply_factors(down, up)
        for layer, (down, up) in pairs.items()
    }
    rest = keyed.rank, keyed.alpha, keyed.latent_shift
    return SRWeights(keyed.kind, lora, replacements, vae, rename_vae_weights(vae_diff), *rest)


def pair_factors(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Pair the two factors (down, up), PEFT's A and B, of each LoRA layer.

    Returns:
        The pairs by layer name, and all other tensors.

    Raises:
        ValueError: If a layer lacks a factor, its factors do not fit, or two adapters have the layer.
    """
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = LORA_FACTOR.fullmatch(name)
        if not found:
            rest[name] = tensor
            continue
        factors = ups if found[2] in ("B", "up") else downs
        if found[1] in factors:
            raise ValueError(
                f"expected one LoRA for {found[1]}, but found a second, {name}; save each adapter "
                "in a file of its own"
            )
        factors[found[1]] = tensor
    for layer in {**downs, **ups}:
        shapes = [tuple(t[layer].shape) for t in (downs, ups) if layer in t]
        are_complete = len(shapes) == 2 and min(map(len, shapes)) > 1 and all(map(prod, shapes))
        if not are_complete or shapes[0][0] != prod(shapes[1][1:]):
            raise ValueError(
                f"expected {layer} to have two LoRA factors that fit, but found {shapes}; download "
                "the file again"
            )
    return {layer: (downs[layer], ups[layer]) for layer in downs}, rest


def is_weight(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a plain tensor, with all its elements in its storage."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    size = value.numel() * value.element_size()
    return size <= value.untyped_storage().nbytes()


def is_state_dict(value: Any) -> TypeGuard[dict[str, Tensor]]:
    """Whether a value is a dict of names and weights."""
    if not isinstance(value, dict):
        return False
    items = cast("dict[object, object]", value).items()
    return all(isinstance(name, str) and is_weight(weight) for name, weight in items)


def find_common_value(values: Iterable[T]) -> T | None:
    """Return the value that all have; None if they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def list_few(names: Iterable[str]) -> str:
    """List the first two names for an error message."""
    listed = list(names)
    # The file may be hostile: names may be very long or hold control characters.
    shown = [n if len(n) < 150 and n.isprintable() else f"{ascii(n)[1:100]}..." for n in listed[:2]]
    return " and ".join(shown + ["more"] * (len(listed) > 2)) or "nothing"


def merge_lora_with_default_alpha(
    layer: str, weights: Mapping[str, Tensor], down: Tensor, up: Tensor
) -> Tensor:
    """Merge the LoRA of a layer, scaled by 8 / r, into its weight; return float32.

    Raises:
        ValueError: If ``weights`` has no weight for the layer, or its shape differs.
    """
    base, change = weights.get(f"{layer}.weight"), _multiply_factors(down, up)
    if base is None or base.shape != change.shape:
        raise ValueError(
            f"expected {layer} to have a base weight of {tuple(change.shape)}, but found "
            f"{'none' if base is None else tuple(base.shape)}; download the file again"
        )
    return base.float() + PEFT_DEFAULT_ALPHA / down.shape[0] * change


def _multiply_factors(down: Tensor, up: Tensor) -> Tensor:
    """Multiply the two factors into the float32 change of a weight.

    It has the shape (out, in) or (out, in, kernel height, kernel width).
    """
    change = up.float().flatten(1) @ down.float().flatten(1)
    return change.reshape(up.shape[0], *down.shape[1:])
