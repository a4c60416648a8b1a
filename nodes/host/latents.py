"""Pictures to latents and back, by the host's VAE."""

from contextlib import contextmanager
from math import isfinite

import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...coz.latent import MULTIPLE_OF, pad_to_multiple
from .images import range_of, require_finite, to_rgb

MOST_SEED = 2**64 - 1


FP32_VAE = "It overflows in half precision: start ComfyUI with --fp32-vae"


def encode(vae: VAE, image: Tensor, model: ModelPatcher) -> Tensor:
    """A view in [0, 1] as the VAE's latent, padded to sides that the model can take."""
    vae.throw_exception_if_invalid()
    compression = vae.spacial_compression_encode()
    require_side(model, image, compression)
    # One memory layout, whichever node made the image: convolutions round differently in another.
    padded = pad_to_multiple(image, max(MULTIPLE_OF, 2 * compression)).movedim(1, -1).contiguous()
    # A VAE of videos takes a batch for the frames of one.
    parts = padded.split(1) if vae.latent_dim == 3 else [padded]
    latent = torch.cat([vae.encode(part) for part in parts]).float()
    expected = model.get_model_object("latent_format").latent_channels
    if latent.shape[1] != expected:
        raise ValueError(
            f"vae makes latents of {latent.shape[1]} channels and model takes {expected}: connect the "
            "vae of the same checkpoint, or of the same family as model"
        )
    return require_finite(latent, lambda: "The VAE's encoder", FP32_VAE)


def decode(vae: VAE, latent: Tensor, height: int, width: int) -> Tensor:
    """The latent as an IMAGE of this size: what was padded is cut off."""
    require_finite(
        latent,
        lambda: "The diffusion model",
        "It overflows in half precision: load it in bfloat16 or start ComfyUI with --fp32-unet or --bf16-unet",
    )
    # An RGBA VAE (Qwen-Image 2.1) decodes alpha too. Every view that it encoded was opaque.
    image = to_rgb(vae.decode(latent))
    image = image.reshape(-1, *image.shape[-3:]).float()  # of a video VAE: (B, 1, H, W, C)
    low, high = range_of(image)
    if not (isfinite(low) and isfinite(high)):
        require_finite(image, lambda: "The VAE's decoder", FP32_VAE)
    cropped = image[:, :height, :width].contiguous()
    return cropped.clamp(0, 1) if low < 0 or high > 1 else cropped


def require_width(model: ModelPatcher, name: str, text) -> None:
    """Refuse the text of another model family before a matrix product does."""
    network: BaseModel = model.model
    config = network.model_config.unet_config
    expected = config.get("context_dim") or config.get("context_embedder_config", {}).get(
        "params", {}
    ).get("in_features")
    found = text[0][0].shape[-1]
    if isinstance(expected, int) and found != expected:
        raise ValueError(
            f"{name} has {found} values a token and model takes {expected}: encode the text with "
            "the clip of the same checkpoint, or of the same family as model"
        )


def require_side(model: ModelPatcher, image: Tensor, compression: int) -> None:
    """Refuse a picture that the model has no places for: SD3-medium has 192 patches a side."""
    network = model.get_model_object("diffusion_model")
    places = getattr(network, "pos_embed_max_size", None)
    height, width = image.shape[-2:]
    if places and max(height, width) > (most := places * network.patch_size * compression):
        raise ValueError(
            f"the view is {width} x {height} pixels and model takes {most} a side: lower size or tile, "
            "or choose another frame, as with whole picture the long side counts too"
        )


@contextmanager
def naming_bare(**texts):
    """Name the text without pooled values where the host's model asks for them."""
    try:
        yield
    except KeyError as error:
        bare = [name for name, text in texts.items() if "pooled_output" not in text[0][1]]
        if error.args != ("pooled_output",) or not bare:
            raise
        raise ValueError(
            f"{bare[0]} has 0 pooled values (pooled_output) and model needs them: encode the text with "
            "the clip of the same checkpoint, or of the same family as model"
        ) from error
