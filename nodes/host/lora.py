"""Apply weight files to ComfyUI's models as patches."""

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
from .sampling import LATENT_SHIFT_KEY, get_model_family


def get_layer_shape(network, target) -> tuple[int, int]:
    """Return (rows, columns) of the weight, or of the slice of a weight, that a patch changes."""
    name, part = (target, None) if isinstance(target, str) else target[:2]
    axis, _, length = part or (0, 0, 0)  # part is None where ComfyUI only reorders the rows
    # Not from the state dict: for packed weights (GGUF, nvfp4) it has the shape of the bytes.
    shape = list(comfy.utils.get_attr(network, name).shape)
    shape[axis] = length or shape[axis]
    return shape[0], math.prod(shape[1:])


def find_misfit(patches: dict, network) -> tuple[str, str, str] | None:
    """Return the first LoRA layer whose shape does not fit: (layer, its size, size in the model)."""
    patch: LoRAAdapter
    for target, patch in patches.items():
        if isinstance(patch, LoRAAdapter):
            up, down, _, mid, _, reshape = patch.weights
            found, expected = (up.shape[0], down[0].numel()), get_layer_shape(network, target)
            if mid is None and reshape is None and found != expected:
                return target, "{} x {}".format(*found), "{} x {}".format(*expected)
    return None


def make_model_patches(model: ModelPatcher, weights: SRWeights, name: str) -> dict:
    """Make ComfyUI's patches for a LoRA, which must fit: ComfyUI itself only logs layers that do not."""
    network: BaseModel = model.model
    family = get_model_family(model)
    targets = comfy.lora.model_lora_keys_unet(network, {})
    is_general = weights.kind == "lora"  # has any layout, and may hold layers of a text encoder
    lora = comfy.lora_convert.convert_lora(weights.lora) if is_general else weights.lora
    patches = comfy.lora.load_lora(lora, targets, log_missing=is_general)
    layers = {key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")}
    unmatched = set() if is_general else layers - targets.keys()
    depth = network.model_config.unet_config.get("depth", 0)
    has_other_depth = weights.kind == "coz lora" and len(layers) != 2 * depth - 1
    if not patches or unmatched or has_other_depth:
        found = f"{len(patches)} of its layers are found in model, {len(unmatched)} are not"
        if not patches:
            found = "none of its layers is found in model"
        raise ValueError(
            f"{name} does not fit model ({family}): {found}. It was made for another base model, or for one "
            "with another number of blocks. The Chain-of-Zoom LoRA is for SD3-medium (24 blocks), OSEDiff's for SD2.1"
        )
    if wrong := find_misfit(patches, network):
        target, found, expected = wrong
        raise ValueError(
            f"{name} does not fit model ({family}): its layer for {target} is {found}, but in model it is "
            f"{expected}. It was made for a base model whose layers have another width"
        )
    return patches


def patch_model(model: ModelPatcher, weights: SRWeights, name: str, strength: float):
    """Return a patched copy of the model; refuse weights that do not fit.

    ``name`` is the name of their file, for the error.
    """
    patches = make_model_patches(model, weights, name)
    model = model.clone()
    replacements = {key: (weight,) for key, weight in weights.replacements.items()}
    model.add_patches(replacements, strength, 1 - strength)
    model.add_patches(patches, strength)
    if weights.latent_shift:
        model.set_attachments(LATENT_SHIFT_KEY, weights.latent_shift)
    return model


def patch_vae(vae: VAE, weights: SRWeights, name: str, strength: float):
    """Return a patched copy of the VAE; refuse weights that do not fit.

    ``name`` is the name of their file, for the error.
    """
    vae.throw_exception_if_invalid()
    state = vae.first_stage_model.state_dict()
    for key, weight in {**weights.vae, **weights.vae_diff}.items():
        found = tuple(state[key].shape) if key in state else "absent"
        if found != tuple(weight.shape):
            raise ValueError(
                f"{name} does not fit vae: its {key} is {tuple(weight.shape)}, but in vae it is {found}. The "
                "Chain-of-Zoom encoder is for the VAE of SD3 (16 channels), OSEDiff's for the VAE of SD2.1"
            )
    patcher: ModelPatcher = vae.patcher.clone()
    replacements = {key: (weight,) for key, weight in weights.vae.items()}
    patcher.add_patches(replacements, strength, 1 - strength)
    patcher.add_patches({key: (diff,) for key, diff in weights.vae_diff.items()}, strength)
    vae = copy.copy(vae)
    vae.patcher = patcher
    return vae


def patch_clip(clip: CLIP, path: Path, strength: float):
    """Return a copy of the text encoder with a LoRA; refuse a LoRA that does not fit.

    ComfyUI itself only logs layers that do not fit.
    """
    lora = read_prompt_lora(path)
    network = clip.cond_stage_model
    targets = comfy.lora.model_lora_keys_clip(network, {})
    layers = {key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")}
    model_blocks, lora_blocks = list_blocks(targets), list_blocks(layers)
    unmatched = sorted(layers - targets.keys())
    # A LoRA may leave blocks out. But if it has all of the first blocks and none of the last, it was
    # made for a model with fewer.
    if unmatched or (len(lora_blocks) == max(lora_blocks, default=0) + 1 < len(model_blocks)):
        raise ValueError(
            f"{path.name} does not fit vlm: {len(unmatched)} of its {len(layers)} layers are not found in "
            f"vlm. It was made for a language model of {len(lora_blocks)} blocks, and vlm has {len(model_blocks)}. "
            "The Chain-of-Zoom LoRA is for Qwen2.5-VL-3B-Instruct"
        )
    patches = comfy.lora.load_lora(lora, targets, log_missing=False)
    if wrong := find_misfit(patches, network):
        target, found, expected = wrong
        raise ValueError(
            f"{path.name} does not fit vlm: its layer for {target} is {found}, but in vlm it is {expected}. "
            "The Chain-of-Zoom LoRA is for Qwen2.5-VL-3B-Instruct"
        )
    clip = clip.clone()
    clip.add_patches(patches, strength)
    return clip


def list_blocks(layers) -> set[int]:
    """List the numbers of the language model's blocks that these layers belong to."""
    pattern = re.compile(re.escape(PROMPT_LORA_PREFIX) + r"model\.layers\.(\d+)\.")
    return {int(found[1]) for layer in layers if (found := pattern.match(layer))}
