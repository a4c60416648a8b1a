"""Convert images to latents and back with ComfyUI's VAE."""

from contextlib import contextmanager
from math import isfinite

import comfy.model_management
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...coz.latent import SIDE_MULTIPLE_PIXELS, pad_to_multiple
from .images import require_finite, to_rgb

MAX_SEED = 2**64 - 1

FP32_VAE_HINT = "It overflows in half precision: start ComfyUI with --fp32-vae"

FP32_MODEL_HINT = "It overflows in half precision: load it in bfloat16 or start ComfyUI with --fp32-unet or --bf16-unet"


def encode(vae: VAE, image: Tensor, model: ModelPatcher) -> Tensor:
    """Encode a view in [0, 1] as a latent, padded to sides that the model can take."""
    vae.throw_exception_if_invalid()
    require_max_side(model, image, vae.spacial_compression_encode())
    # Always the same memory layout, because the rounding of convolutions depends on it.
    padded = pad_view(vae, image).movedim(1, -1).contiguous()
    # A video VAE would treat a batch as the frames of one video.
    parts = padded.split(1) if vae.latent_dim == 3 else [padded]
    frames = (1,) * (vae.latent_dim - 2)
    size = len(parts[0]), padded.shape[-1], *frames, *padded.shape[1:3]
    load_vae_with_room(vae, vae.memory_used_encode(size, vae.vae_dtype))
    latent = torch.cat([vae.encode(part) for part in parts]).float()
    expected = model.get_model_object("latent_format").latent_channels
    if latent.shape[1] != expected:
        raise ValueError(
            f"vae makes latents of {latent.shape[1]} channels, but model takes {expected}: connect the "
            "vae of the same checkpoint, or of the same family as model"
        )
    return require_finite(latent, lambda: "The VAE's encoder", FP32_VAE_HINT)


def pad_view(vae: VAE, image: Tensor) -> Tensor:
    """Extend a view (B, 3, H, W) to the right and down to sides that ``encode`` takes."""
    return pad_to_multiple(image, max(SIDE_MULTIPLE_PIXELS, 2 * vae.spacial_compression_encode()))


def decode(vae: VAE, latent: Tensor, height: int, width: int) -> Tensor:
    """Decode a latent to an IMAGE of this size: the padding is cut off."""
    load_vae_with_room(vae, vae.memory_used_decode(latent.shape, vae.vae_dtype))
    # An RGBA VAE (Qwen-Image 2.1) decodes alpha too. Drop it: every view is opaque.
    image = to_rgb(vae.decode(latent))
    image = image.reshape(-1, *image.shape[-3:]).float()  # of a video VAE: (B, 1, H, W, C)
    # One read for all: torch waits for a GPU at each.
    is_finite = latent.isfinite().all().to(image)
    is_finite, low, high = torch.stack([is_finite, *image.aminmax()]).tolist()
    if not is_finite:
        require_finite(latent, lambda: "The diffusion model", FP32_MODEL_HINT)
    if not (isfinite(low) and isfinite(high)):
        require_finite(image, lambda: "The VAE's decoder", FP32_VAE_HINT)
    cropped = image[:, :height, :width].contiguous()
    return cropped.clamp(0, 1) if low < 0 or high > 1 else cropped


def load_vae_with_room(vae: VAE, memory: float) -> None:
    """Load a VAE and keep ``memory`` bytes free beside it, before encode or decode does the same.

    Otherwise, if memory ran out while encode or decode loads the VAE, ComfyUI would fall back to tiles with
    the VAE still on the CPU, and fail.
    """
    comfy.model_management.load_models_gpu(
        [vae.patcher], memory_required=memory, force_full_load=vae.disable_offload
    )


def require_conditioning_width(model: ModelPatcher, name: str, conditioning) -> None:
    """Refuse a conditioning for another model family, which would fail deep inside the model."""
    network: BaseModel = model.model
    config = network.model_config.unet_config
    expected = config.get("context_dim") or config.get("context_embedder_config", {}).get(
        "params", {}
    ).get("in_features")
    found = conditioning[0][0].shape[-1]
    if isinstance(expected, int) and found != expected:
        raise ValueError(
            f"{name} has {found} values per token, but model takes {expected}: encode the text with "
            "the clip of the same checkpoint, or of the same family as model"
        )


def require_max_side(model: ModelPatcher, image: Tensor, compression: int) -> None:
    """Refuse an image larger than the model's position embedding: SD3-medium has 192 patches a side."""
    network = model.get_model_object("diffusion_model")
    patches = getattr(network, "pos_embed_max_size", None)
    height, width = image.shape[-2:]
    if patches and max(height, width) > (limit := patches * network.patch_size * compression):
        raise ValueError(
            f"the view is {width} x {height} pixels, but model takes at most {limit} along a side: lower "
            'size or tile. With frame "whole picture" the long side may be too long: choose another frame'
        )


@contextmanager
def explain_missing_pooled(**conditionings):
    """If the model fails because a conditioning has no pooled values, raise an error that names it."""
    try:
        yield
    except KeyError as error:
        unpooled = [
            name for name, each in conditionings.items() if "pooled_output" not in each[0][1]
        ]
        if error.args != ("pooled_output",) or not unpooled:
            raise
        raise ValueError(
            f"{unpooled[0]} has no pooled values (pooled_output), but model needs them: encode the text "
            "with the clip of the same checkpoint, or of the same family as model"
        ) from error
