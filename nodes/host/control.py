"""Steer sampling with ComfyUI's ControlNets."""

from typing import NamedTuple

from comfy.controlnet import ControlBase
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from nodes import ControlNetApplyAdvanced

from .latents import pad_view
from .options import require_choice, require_range
from .sampling import get_model_family

HINTS = ["zoomed view", "none"]
"""What a ControlNet sees. With "none" it is not used."""

DEFAULT_STRENGTH, MAX_STRENGTH = 0.6, 10

FAMILIES = {768: "SD15", 1024: "SD20", 2048: "SDXL"}
"""Values per token of a conditioning -> ComfyUI's name for the family that reads such conditionings."""


class Control(NamedTuple):
    """A ControlNet and how it is used. The fields are named as the inputs of CoZ Refine Step."""

    control_net: ControlBase
    """In an expanding node, the link to it."""
    control_strength: float
    control_end: float
    """Fraction of the noise schedule after which it has no effect; 1 is the end."""


def choose_control(
    control_net=None,
    control_strength: float = DEFAULT_STRENGTH,
    control_end: float = 1.0,
    control_hint: str = HINTS[0],
    **others,
) -> Control | None:
    """Return the ControlNet that these inputs choose, or None if it would have no effect."""
    require_range("control_strength", control_strength, 0, MAX_STRENGTH)
    require_range("control_end", control_end, 0, 1)
    require_choice("control_hint", control_hint, HINTS)
    if control_net is None or control_strength == 0 or control_hint != HINTS[0]:
        return None
    return Control(control_net, control_strength, control_end)


def add_control(
    model: ModelPatcher,
    vae: VAE,
    positive: list,
    negative: list,
    view: Tensor,
    control: Control | None,
) -> tuple[list, list]:
    """Add a ControlNet that sees ``view`` (B, 3, H, W) to both conditionings, as Apply ControlNet does.

    It sees the padded view that the VAE gets: ComfyUI would stretch an unpadded one to the padded size.
    """
    if control is None:
        return positive, negative
    require_same_family(model, control.control_net)
    return ControlNetApplyAdvanced().apply_controlnet(
        positive,
        negative,
        control.control_net,
        pad_view(vae, view).movedim(1, -1),
        control.control_strength,
        0.0,
        control.control_end,
        vae=vae,
    )


def require_same_family(model: ModelPatcher, control_net: ControlBase) -> None:
    """Refuse a ControlNet of another model family, which would fail deep inside the network."""
    network: BaseModel = model.model
    width = find_conditioning_width(control_net)
    if width is not None:
        is_same = width == network.model_config.unet_config.get("context_dim")
        family = FAMILIES.get(width, f"models whose texts have {width} values per token")
    elif control_net.latent_format is not None:
        latent_format = type(control_net.latent_format)
        is_same = latent_format is type(model.get_model_object("latent_format"))
        family = latent_format.__name__
    else:
        return  # a T2I-Adapter, which reads no text and no latent
    if not is_same:
        found = get_model_family(model)
        raise ValueError(
            f"control_net is for {family}, but model is {found}: load a ControlNet that was made for "
            f"{found}, or disconnect control_net"
        )


def find_conditioning_width(control_net: ControlBase) -> int | None:
    """Return the values per token of the conditioning that a ControlNet reads.

    None if it reads none, or is not made from the encoder of a UNet.
    """
    # A Control-LoRA has its weights only: ComfyUI makes the network when sampling starts.
    network = getattr(control_net, "control_model", None)
    weights = network.state_dict() if network else getattr(control_net, "control_weights", {})
    for name, weight in weights.items():
        if name.endswith(("attn2.to_k.weight", "attn2.to_k.down")):
            return weight.shape[-1]
    return None
