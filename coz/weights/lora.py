"""Upstream weight files -> standard keyed weights, as ComfyUI's own loaders name them.

Dict work only: `coz.weights.read` reads the files, and puts their names before the errors raised here.
"""

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, cast

import torch
from torch import Tensor

from .vae import HOST_VAE_NAME, rename_vae_weights

T = TypeVar("T")
Kind = Literal["coz lora", "coz vae encoder", "osediff", "peft lora", "lora"]

PEFT_DEFAULT_ALPHA = 8.0
"""peft LoraConfig(lora_alpha=8): Chain-of-Zoom and OSEDiff set r and leave alpha as it is."""

CONV_IN_KEYS = {
    "diffusion_model.input_blocks.0.0.set_weight": "diffusion_model.input_blocks.0.0.weight",
    "diffusion_model.input_blocks.0.0.bias.set_weight": "diffusion_model.input_blocks.0.0.bias",
}
"""What replaces a weight in a LoRA file -> the weight: ComfyUI comfy/lora.py, load_lora."""

VAE_LORA_PREFIX = "vae."
"""Before a layer of a LoRA for the VAE; no stock loader takes one."""

LORA_FACTOR = re.compile(r"(.+)\.lora_(A|B|down|up)(?:\.\w+)?\.weight")


class KeyedWeights(NamedTuple):
    """One file's weights under standard keys: what a converted file holds."""

    kind: Kind
    tensors: dict[str, Tensor]
    """Keys of ComfyUI's LoRA loader; `encoder.`...: VAE weights in ComfyUI's naming; `vae.`...: a
    LoRA for the VAE."""
    rank: int | None
    alpha: float | None
    """A LoRA counts alpha / rank times; None where its layers differ."""

    @property
    def latent_shift(self) -> Literal["reference"] | None:
        """The latent convention that the weights are known to need."""
        return "reference" if self.kind == "coz lora" else None


class SRWeights(NamedTuple):
    """What one weight file changes in a diffusion model and its VAE."""

    kind: Kind
    lora: dict[str, Tensor]
    """For ComfyUI's `load_lora`, an `.alpha` for each layer; of kind "lora": as in the file."""
    replaced: dict[str, Tensor]
    """Diffusion-model weights that are replaced as a whole, in ComfyUI's naming."""
    vae: dict[str, Tensor]
    """VAE weights that replace the base's, in ComfyUI's naming."""
    vae_diff: dict[str, Tensor]
    """What to add to VAE weights, in ComfyUI's naming, float32."""
    rank: int | None
    alpha: float | None
    """A LoRA counts alpha / rank times; None where its layers differ."""
    latent_shift: Literal["reference"] | None


def split_weights(keyed: KeyedWeights) -> SRWeights:
    """Split standard keys into what is for the diffusion model and what for the VAE."""
    vae: dict[str, Tensor] = {}
    vae_lora: dict[str, Tensor] = {}
    lora: dict[str, Tensor] = {}
    replaced: dict[str, Tensor] = {}
    for name, tensor in keyed.tensors.items():
        if keyed.kind == "lora":
            lora[name] = tensor
        elif name in CONV_IN_KEYS:
            replaced[CONV_IN_KEYS[name]] = tensor
        elif name.startswith(VAE_LORA_PREFIX):
            vae_lora[name.removeprefix(VAE_LORA_PREFIX)] = tensor
        elif HOST_VAE_NAME.fullmatch(name):
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
    return SRWeights(keyed.kind, lora, replaced, vae, rename_vae_weights(vae_diff), *rest)


def pair_factors(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, tuple[Tensor, Tensor]], dict[str, Tensor]]:
    """Each LoRA layer's (down, up), PEFT's A and B, by its name; and all that is none of these.

    Raises:
        ValueError: If a layer lacks one of the two, they do not fit, or two adapters have it.
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
        are_whole = len(shapes) == 2 and min(map(len, shapes)) > 1 and all(map(prod, shapes))
        if not are_whole or shapes[0][0] != prod(shapes[1][1:]):
            raise ValueError(
                f"expected {layer} to have two LoRA factors that fit, but found {shapes}; download "
                "the file again"
            )
    return {layer: (downs[layer], ups[layer]) for layer in downs}, rest


def is_weight(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a plain tensor with all its values in the file."""
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
        return False
    size = value.numel() * value.element_size()
    return size <= value.untyped_storage().nbytes()


def is_state_dict(value: Any) -> TypeGuard[dict[str, Tensor]]:
    """Whether it is a dict of names and weights."""
    if not isinstance(value, dict):
        return False
    items = cast("dict[object, object]", value).items()
    return all(isinstance(name, str) and is_weight(weight) for name, weight in items)


def find_common_value(values: Iterable[T]) -> T | None:
    """The value that all have, None where they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def list_few(names: Iterable[str]) -> str:
    """The first names, for an error message."""
    listed = list(names)
    # From a file of anybody: any length, and what a terminal obeys.
    shown = [n if len(n) < 150 and n.isprintable() else f"{ascii(n)[1:100]}..." for n in listed[:2]]
    return " and ".join(shown + ["more"] * (len(listed) > 2)) or "nothing"


def merge_lora(layer: str, weights: Mapping[str, Tensor], down: Tensor, up: Tensor) -> Tensor:
    """The weight of a layer with its LoRA in it, times 8 / r, float32.

    Raises:
        ValueError: If ``weights`` has no weight for the layer, or one of another shape.
    """
    base, change = weights.get(f"{layer}.weight"), _multiply_factors(down, up)
    if base is None or base.shape != change.shape:
        raise ValueError(
            f"expected {layer} to have a base weight of {tuple(change.shape)}, but found "
            f"{'none' if base is None else tuple(base.shape)}; download the file again"
        )
    return base.float() + PEFT_DEFAULT_ALPHA / down.shape[0] * change


def _multiply_factors(down: Tensor, up: Tensor) -> Tensor:
    """The weight's change, (out, in) or (out, in, kernel height, kernel width), float32."""
    change = up.float().flatten(1) @ down.float().flatten(1)
    return change.reshape(up.shape[0], *down.shape[1:])
