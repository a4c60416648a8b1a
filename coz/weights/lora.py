"""Upstream weight files -> standard keyed weights, as ComfyUI's own loaders name them.

Dict work only: `coz.weights.read` reads the files, and puts their names before the errors raised here.
"""

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar, cast

import torch
from torch import Tensor

from .vae import HOST_VAE, host_name, host_vae

T = TypeVar("T")
Kind = Literal["coz lora", "coz vae encoder", "osediff", "peft lora", "lora"]

PEFT_DEFAULT_ALPHA = 8.0
"""peft LoraConfig(lora_alpha=8): Chain-of-Zoom and OSEDiff set r and leave alpha as it is."""

SD3_CHANNELS_A_BLOCK = 64
"""SD3's width is 64 * depth: ComfyUI comfy/utils.py, mmdit_to_diffusers."""

CONV_IN = {
    "diffusion_model.input_blocks.0.0.set_weight": "diffusion_model.input_blocks.0.0.weight",
    "diffusion_model.input_blocks.0.0.bias.set_weight": "diffusion_model.input_blocks.0.0.bias",
}
"""What replaces a weight in a LoRA file -> the weight: ComfyUI comfy/lora.py, load_lora."""

VAE_LORA = "vae."
"""Before a layer of a LoRA for the VAE; no stock loader takes one."""

ENCODER_PARTS = ["encoder.conv_in", "encoder.mid.attn_1.q", "encoder.norm_out", "encoder.conv_out"]

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


def keyed_coz_lora(tensors: list[Any]) -> KeyedWeights:
    """Name the matrices of Chain-of-Zoom's SR LoRA, a list [up, down, up, down, ...].

    Args:
        tensors: up (6 * width, r) and down (r, width) for each AdaLayerNormZero of an SD3
            transformer: a block's image and text stream by turns, of the last the image stream.

    Returns:
        `transformer.transformer_blocks.{i}.norm1[_context].linear`, alpha = r.

    Raises:
        ValueError: If these are not the matrices of one SD3 transformer.

    Source: Chain-of-Zoom osediff_sd3.py, inject_lora (scale=1.0).
    """
    if len(tensors) < 2 or not all(is_weight(t) and t.ndim == 2 and t.numel() for t in tensors):
        raise ValueError(
            "expected a list of matrices, the Chain-of-Zoom SR LoRA, but found a list of "
            f"{len(tensors)} entries that are not all matrices; take model_20001.pkl"
        )
    rank, width = tensors[1].shape
    blocks = width // SD3_CHANNELS_A_BLOCK
    if len(tensors) != 2 * (2 * blocks - 1) or width % SD3_CHANNELS_A_BLOCK:
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
        # Saved from parameters in training, they may still ask for gradients.
        keyed[f"{layer}.lora_A.weight"] = tensors[i + 1].detach()
        keyed[f"{layer}.lora_B.weight"] = tensors[i].detach()
        keyed[f"{layer}.alpha"] = torch.tensor(float(rank))
    return KeyedWeights("coz lora", keyed, rank, float(rank))


def keyed_coz_vae_encoder(tensors: Mapping[str, Tensor]) -> KeyedWeights:
    """Merge the LoRA of Chain-of-Zoom's VAE encoder, times 8 / r, and name it as ComfyUI does.

    Args:
        tensors: State dict of a diffusers encoder with a PEFT adapter in it, any float dtype.

    Returns:
        The whole encoder; what was merged is float32, the rest keeps its dtype.

    Raises:
        ValueError: If a part is missing, or is none of an encoder's.

    Source: Chain-of-Zoom osediff_sd3.py, inject_lora_vae (LoraConfig with r and no alpha).
    """
    pairs, rest = lora_pairs(tensors)
    plain = {name.replace(".base_layer.", "."): tensor for name, tensor in rest.items()}
    for layer, pair in pairs.items():
        plain[f"{layer}.weight"] = _merged(layer, plain, *pair)
    encoder = host_vae({f"encoder.{name}": tensor for name, tensor in plain.items()})
    lacking = [part for part in ENCODER_PARTS if f"{part}.weight" not in encoder]
    strange = [name for name in encoder if not HOST_VAE.fullmatch(name)]
    if lacking or strange or not pairs:
        raise ValueError(
            "expected the whole VAE encoder of Chain-of-Zoom with its LoRA, but found "
            f"{len(pairs)} LoRA layers, {few(strange)} besides and {few(lacking)} missing; take "
            "vae_encoder_20001.pt"
        )
    rank = uniform(down.shape[0] for down, _ in pairs.values())
    return KeyedWeights("coz vae encoder", encoder, rank, PEFT_DEFAULT_ALPHA)


def keyed_osediff(content: Mapping[str, Any]) -> KeyedWeights:
    """Name OSEDiff's weights: LoRA for SD2.1's UNet and VAE, times 8 / r, and a trained conv_in.

    conv_in has a LoRA too. It is merged here: ComfyUI's loader takes one patch for a weight.

    Raises:
        ValueError: If a part is missing or damaged.

    Source: OSEDiff osediff.py, load_ckpt: three adapters, each for layers of its own.
    """
    unet, vae = content.get("state_dict_unet"), content.get("state_dict_vae")
    if not is_state_dict(unet) or not is_state_dict(vae):
        raise ValueError(
            "expected OSEDiff's state_dict_unet and state_dict_vae, two dicts of tensors, but "
            f"found {type(unet).__name__} and {type(vae).__name__}; take osediff.pkl"
        )
    pairs, rest = lora_pairs(unet)
    base = {name.replace(".base_layer.", "."): tensor for name, tensor in rest.items()}
    if not pairs or base.keys() != {"conv_in.weight", "conv_in.bias"}:
        raise ValueError(
            "expected OSEDiff's UNet to hold LoRA layers, conv_in.weight and conv_in.bias, but "
            f"found {len(pairs)} LoRA layers and {few(base)}; take osediff.pkl"
        )
    if "conv_in" in pairs:
        base["conv_in.weight"] = _merged("conv_in", base, *pairs.pop("conv_in"))
    weight, bias = base["conv_in.weight"], base["conv_in.bias"]
    keyed = dict(zip(CONV_IN, [weight, bias], strict=True))
    vae_pairs, rest = lora_pairs(vae)
    vae_layers = {
        host_name(f"{name}.weight").removesuffix(".weight"): pair
        for name, pair in vae_pairs.items()
    }
    strange = [*rest, *(n for n in vae_layers if not HOST_VAE.fullmatch(f"{n}.weight"))]
    if strange or not vae_pairs:
        raise ValueError(
            f"expected OSEDiff's VAE part to hold LoRA layers, but found {len(vae_pairs)} and "
            f"{few(strange)} besides; take osediff.pkl"
        )
    layers = {f"lora_unet_{name.replace('.', '_')}": pair for name, pair in pairs.items()}
    layers |= {VAE_LORA + name: pair for name, pair in vae_layers.items()}
    for layer, (down, up) in layers.items():
        keyed[f"{layer}.lora_down.weight"] = down
        keyed[f"{layer}.lora_up.weight"] = up
        keyed[f"{layer}.alpha"] = torch.tensor(PEFT_DEFAULT_ALPHA)
    rank = uniform(down.shape[0] for down, _ in layers.values())
    return KeyedWeights("osediff", keyed, rank, PEFT_DEFAULT_ALPHA)


def sr_weights(keyed: KeyedWeights) -> SRWeights:
    """Split standard keys into what is for the diffusion model and what for the VAE."""
    vae: dict[str, Tensor] = {}
    vae_lora: dict[str, Tensor] = {}
    lora: dict[str, Tensor] = {}
    replaced: dict[str, Tensor] = {}
    for name, tensor in keyed.tensors.items():
        if keyed.kind == "lora":
            lora[name] = tensor
        elif name in CONV_IN:
            replaced[CONV_IN[name]] = tensor
        elif name.startswith(VAE_LORA):
            vae_lora[name.removeprefix(VAE_LORA)] = tensor
        elif HOST_VAE.fullmatch(name):
            vae[name] = tensor
        else:
            lora[name] = tensor
    pairs, alphas = lora_pairs(vae_lora)
    vae_diff = {
        f"{layer}.weight": float(alphas[f"{layer}.alpha"]) / down.shape[0] * _product(down, up)
        for layer, (down, up) in pairs.items()
    }
    rest = keyed.rank, keyed.alpha, keyed.latent_shift
    return SRWeights(keyed.kind, lora, replaced, vae, host_vae(vae_diff), *rest)


def lora_pairs(
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


def uniform(values: Iterable[T]) -> T | None:
    """The value that all have, None where they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def few(names: Iterable[str]) -> str:
    """The first names, for an error message."""
    listed = list(names)
    # From a file of anybody: any length, and what a terminal obeys.
    shown = [n if len(n) < 150 and n.isprintable() else f"{ascii(n)[1:100]}..." for n in listed[:2]]
    return " and ".join(shown + ["more"] * (len(listed) > 2)) or "nothing"


def _merged(layer: str, weights: Mapping[str, Tensor], down: Tensor, up: Tensor) -> Tensor:
    base, change = weights.get(f"{layer}.weight"), _product(down, up)
    if base is None or base.shape != change.shape:
        raise ValueError(
            f"expected {layer} to have a base weight of {tuple(change.shape)}, but found "
            f"{'none' if base is None else tuple(base.shape)}; download the file again"
        )
    return base.float() + PEFT_DEFAULT_ALPHA / down.shape[0] * change


def _product(down: Tensor, up: Tensor) -> Tensor:
    """The weight's change, (out, in) or (out, in, kernel height, kernel width), float32."""
    change = up.float().flatten(1) @ down.float().flatten(1)
    return change.reshape(up.shape[0], *down.shape[1:])
