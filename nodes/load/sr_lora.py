import copy
import math

import comfy.lora
import comfy.lora_convert
import comfy.utils
from comfy.weight_adapter import LoRAAdapter
from comfy_api.latest import io

from ...coz.weights.lora import SRWeights
from ...coz.weights.read import read_weights
from ..host.files import found_in, likely_first, missing, path_of
from ..step.sr_step import LATENT_SHIFT

UPSTREAM = "https://github.com/bryanswkim/Chain-of-Zoom/raw/main/ckpt/"
LORA = (UPSTREAM + "SR_LoRA/model_20001.pkl", "loras")
ENCODER = (UPSTREAM + "SR_VAE/vae_encoder_20001.pt", "vae", "loras")
"""Chain-of-Zoom's own file, and the folders that such files are in."""
LIKELY = "coz|20001"


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
    for target, patch in patches.items():
        if isinstance(patch, LoRAAdapter):
            up, down, _, mid, _, reshape = patch.weights
            found, expected = (up.shape[0], down[0].numel()), shape_in(network, target)
            if mid is None and reshape is None and found != expected:
                return target, "{} x {}".format(*found), "{} x {}".format(*expected)
    return None


def model_patches(model, weights: SRWeights, name: str) -> dict:
    """The host's patches for a LoRA that fits: the host itself only logs what does not."""
    family = type(model.model.model_config).__name__
    places = comfy.lora.model_lora_keys_unet(model.model, {})
    anyones = weights.kind == "lora"  # in any layout, and may hold parts for a text encoder
    lora = comfy.lora_convert.convert_lora(weights.lora) if anyones else weights.lora
    patches = comfy.lora.load_lora(lora, places, log_missing=anyones)
    layers = {key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")}
    lost = set() if anyones else layers - places.keys()
    depth = model.model.model_config.unet_config.get("depth", 0)
    short = weights.kind == "coz lora" and len(layers) != 2 * depth - 1
    if not patches or lost or short:
        raise ValueError(
            f"{name} does not fit model ({family}): {len(patches)} of its layers have a place there, "
            f"{len(lost)} have none. It is made for another base model or another depth. The "
            "Chain-of-Zoom LoRA is for SD3-medium (24 blocks), OSEDiff's for SD2.1"
        )
    if wrong := misfit(patches, model.model):
        target, found, expected = wrong
        raise ValueError(
            f"{name} does not fit model ({family}): its layer for {target} is {found}, the model's "
            f"{expected}. It is made for a base model of another width"
        )
    return patches


def with_vae_weights(vae, weights: SRWeights, name: str, strength: float):
    vae.throw_exception_if_invalid()
    state = vae.first_stage_model.state_dict()
    for key, weight in {**weights.vae, **weights.vae_diff}.items():
        found = tuple(state[key].shape) if key in state else "absent"
        if found != tuple(weight.shape):
            raise ValueError(
                f"{name} does not fit vae: its {key} is {tuple(weight.shape)}, the vae's {found}. The "
                "Chain-of-Zoom encoder is for the VAE of SD3 (16 channels), OSEDiff's for that of SD2.1"
            )
    vae = copy.copy(vae)
    vae.patcher = vae.patcher.clone()
    replaced = {key: (weight,) for key, weight in weights.vae.items()}
    vae.patcher.add_patches(replaced, strength, 1 - strength)
    vae.patcher.add_patches({key: (diff,) for key, diff in weights.vae_diff.items()}, strength)
    return vae


class CoZLoadSRLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZLoadSRLoRA",
            display_name="CoZ Load SR LoRA",
            category="Chain-of-Zoom/load",
            description="Makes a one-step super-resolution model of a base model: loads the Chain-of-Zoom LoRA and VAE "
            "encoder as published (.pkl, .pt), OSEDiff's file, or any LoRA made for the purpose.",
            search_aliases=["load lora", "super resolution LoRA", "OSEDiff", "TSD-SR"],
            inputs=[
                io.Model.Input("model", tooltip="The base model; SD3-medium for Chain-of-Zoom."),
                io.Vae.Input("vae", tooltip="The base model's VAE."),
                io.Combo.Input(
                    "lora_name",
                    options=likely_first(LIKELY, *LORA[1:]),
                    tooltip="A file of models/loras: model_20001.pkl of Chain-of-Zoom, osediff.pkl, or a safetensors file.",
                ),
                io.Combo.Input(
                    "vae_encoder_name",
                    options=["none", *likely_first(LIKELY, *ENCODER[1:])],
                    default="none",
                    tooltip="A file of models/vae or models/loras: vae_encoder_20001.pt of Chain-of-Zoom. none: the VAE keeps "
                    "its own encoder, or gets the one inside the LoRA file (OSEDiff).",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Share of the change, in model and vae. 0 changes nothing.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", display_name="model", tooltip="For CoZ SR Step."),
                io.Vae.Output("VAE", display_name="vae", tooltip="For CoZ SR Step."),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name, vae_encoder_name):
        """In place of the host's "value not in list", which does not say where to get the file."""
        for name, (own, *folders) in ((lora_name, LORA), (vae_encoder_name, ENCODER)):
            if name not in {None, "none"} and not found_in(name, *folders):
                return missing(name, own, *folders)
        return True

    @classmethod
    def execute(cls, model, vae, lora_name, vae_encoder_name="none", strength=1.0) -> io.NodeOutput:
        if strength == 0:
            return io.NodeOutput(model, vae)
        weights = read_weights(path_of(lora_name, *LORA))
        if not weights.lora:
            raise ValueError(
                f"{lora_name} holds no LoRA but: {weights.kind}. Choose it as vae_encoder_name, and "
                "model_20001.pkl of Chain-of-Zoom here"
            )
        patches = model_patches(model, weights, lora_name)
        model = model.clone()
        replaced = {key: (weight,) for key, weight in weights.replaced.items()}
        model.add_patches(replaced, strength, 1 - strength)
        model.add_patches(patches, strength)
        if weights.latent_shift:
            model.set_attachments(LATENT_SHIFT, weights.latent_shift)
        if weights.vae_diff:
            vae = with_vae_weights(vae, weights, lora_name, strength)
        if vae_encoder_name != "none":
            encoder = read_weights(path_of(vae_encoder_name, *ENCODER))
            if not encoder.vae:
                raise ValueError(
                    f"{vae_encoder_name} holds no VAE encoder but: {encoder.kind}. Choose "
                    "vae_encoder_20001.pt of Chain-of-Zoom or its converted form, or none"
                )
            vae = with_vae_weights(vae, encoder, vae_encoder_name, strength)
        return io.NodeOutput(model, vae)
