"""Weight files as patches of the host's models."""

import copy
import math
import re
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.utils
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from comfy.weight_adapter import LoRAAdapter

from ...coz.weights.lora import SRWeights
from ...coz.weights.peft import PROMPT_LORA_PREFIX
from ...coz.weights.read import read_prompt_lora
from .sampling import LATENT_SHIFT, family_of


def shape_in(network, target) -> tuple[int, int]:
    """Rows and columns of the weight that a patch is for, or of the slice of it."""
    name, place = (target, None) if isinstance(target, str) else target[:2]
    axis, _, length = place or (0, 0, 0)  # none where the host only reorders the weight's rows
    # Not the state dict's: of packed weights, as of GGUF and nvfp4, it has the bytes.
    shape = list(comfy.utils.get_attr(network, name).shape)
    shape[axis] = length or shape[axis]
    return shape[0], math.prod(shape[1:])


def misfit(patches: dict, network) -> tuple[str, str, str] | None:
    """(layer, its size, the model's) of the first LoRA layer that is not of the model's shape."""
    patch: LoRAAdapter
    for target, patch in patches.items():
        if isinstance(patch, LoRAAdapter):
            up, down, _, mid, _, reshape = patch.weights
            found, expected = (up.shape[0], down[0].numel()), shape_in(network, target)
            if mid is None and reshape is None and found != expected:
                return target, "{} x {}".format(*found), "{} x {}".format(*expected)
    return None


def model_patches(model: ModelPatcher, weights: SRWeights, name: str) -> dict:
    """The host's patches for a LoRA that fits: the host itself only logs what does not."""
    network: BaseModel = model.model
    family = family_of(model)
    places = comfy.lora.model_lora_keys_unet(network, {})
    anyones = weights.kind == "lora"  # in any layout, and may hold parts for a text encoder
    lora = comfy.lora_convert.convert_lora(weights.lora) if anyones else weights.lora
    patches = comfy.lora.load_lora(lora, places, log_missing=anyones)
    layers = {key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")}
    lost = set() if anyones else layers - places.keys()
    depth = network.model_config.unet_config.get("depth", 0)
    short = weights.kind == "coz lora" and len(layers) != 2 * depth - 1
    if not patches or lost or short:
        raise ValueError(
            f"{name} does not fit model ({family}): {len(patches)} of its layers have a place there, "
            f"{len(lost)} have none. It is made for another base model or another depth. The "
            "Chain-of-Zoom LoRA is for SD3-medium (24 blocks), OSEDiff's for SD2.1"
        )
    if wrong := misfit(patches, network):
        target, found, expected = wrong
        raise ValueError(
            f"{name} does not fit model ({family}): its layer for {target} is {found}, the model's "
            f"{expected}. It is made for a base model of another width"
        )
    return patches


def with_model_weights(model: ModelPatcher, weights: SRWeights, name: str, strength: float):
    """A copy of model with the weights of a file of this name, which must fit it."""
    patches = model_patches(model, weights, name)
    model = model.clone()
    replaced = {key: (weight,) for key, weight in weights.replaced.items()}
    model.add_patches(replaced, strength, 1 - strength)
    model.add_patches(patches, strength)
    if weights.latent_shift:
        model.set_attachments(LATENT_SHIFT, weights.latent_shift)
    return model


def with_vae_weights(vae: VAE, weights: SRWeights, name: str, strength: float):
    vae.throw_exception_if_invalid()
    state = vae.first_stage_model.state_dict()
    for key, weight in {**weights.vae, **weights.vae_diff}.items():
        found = tuple(state[key].shape) if key in state else "absent"
        if found != tuple(weight.shape):
            raise ValueError(
                f"{name} does not fit vae: its {key} is {tuple(weight.shape)}, the vae's {found}. The "
                "Chain-of-Zoom encoder is for the VAE of SD3 (16 channels), OSEDiff's for that of SD2.1"
            )
    patcher: ModelPatcher = vae.patcher.clone()
    replaced = {key: (weight,) for key, weight in weights.vae.items()}
    patcher.add_patches(replaced, strength, 1 - strength)
    patcher.add_patches({key: (diff,) for key, diff in weights.vae_diff.items()}, strength)
    vae = copy.copy(vae)
    vae.patcher = patcher
    return vae


def with_lora(clip: CLIP, path: Path, strength: float):
    """A copy of clip with a LoRA that fits: the host itself only logs what does not."""
    lora = read_prompt_lora(path)
    network = clip.cond_stage_model
    places = comfy.lora.model_lora_keys_clip(network, {})
    layers = {key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")}
    ours, its = depth(places), depth(layers)
    lost = sorted(layers - places.keys())
    # A part of the layers may be meant; all of a lesser number are another model's.
    if lost or (len(its) == max(its, default=0) + 1 < len(ours)):
        raise ValueError(
            f"{path.name} does not fit vlm: {len(lost)} of its {len(layers)} layers have no place there. It is "
            f"for a language model of {len(its)} blocks, vlm has {len(ours)}. Chain-of-Zoom's is for "
            "Qwen2.5-VL-3B-Instruct"
        )
    patches = comfy.lora.load_lora(lora, places, log_missing=False)
    if wrong := misfit(patches, network):
        target, found, expected = wrong
        raise ValueError(
            f"{path.name} does not fit vlm: its layer for {target} is {found}, the model's {expected}. "
            "Chain-of-Zoom's is for Qwen2.5-VL-3B-Instruct"
        )
    clip = clip.clone()
    clip.add_patches(patches, strength)
    return clip


def depth(layers) -> set[int]:
    """The numbers of the language model's blocks among the layers."""
    pattern = re.compile(re.escape(PROMPT_LORA_PREFIX) + r"model\.layers\.(\d+)\.")
    return {int(found[1]) for layer in layers if (found := pattern.match(layer))}
