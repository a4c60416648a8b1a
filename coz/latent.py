"""One-step prediction with a diffusion model: latent scales, noise and image sizes."""

from typing import Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

LatentShift = Literal["reference", "symmetric", "none"]

LATENT_SHIFTS: list[LatentShift] = list(get_args(LatentShift))

SIDE_MULTIPLE_PIXELS = 16
"""Sides of an image are multiples of this: the VAE reduces by 8, the transformer patches by 2."""


class LatentFormat(Protocol):
    """The affine map between a VAE's latents and a model's; ComfyUI's latent formats have this interface."""

    def process_in(self, latent: Tensor) -> Tensor:
        """Convert from the VAE's scale to the model's."""
        ...

    def process_out(self, latent: Tensor) -> Tensor:
        """Convert from the model's scale to the VAE's."""
        ...


class ModelSampling(Protocol):
    """The parametrization of a model; ComfyUI's `model_sampling` objects have this interface."""

    @property
    def sigma_max(self) -> Tensor:
        """The largest noise level."""
        ...

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        """Scale a noised latent to the input of the network."""
        ...

    def noise_scaling(
        self, sigma: Tensor, noise: Tensor, latent_image: Tensor, max_denoise: bool = False
    ) -> Tensor:
        """Make the noised latent that sampling starts from."""
        ...


def scale_to_model(latent: Tensor, latent_format: LatentFormat, shift: LatentShift) -> Tensor:
    """Convert a VAE's latent to the scale of the model.

    Args:
        latent: (B, C, h, w), as the VAE encodes it.
        latent_format: The latent format of the model.
        shift: Only "symmetric" subtracts the format's shift; the others only scale.

    Returns:
        Same shape.

    Source: "reference" is Chain-of-Zoom osediff_sd3.py, OSEDiff_SD3_TEST.forward (no shift on
    encode, shift on decode); "symmetric" is its training code, OSEDiff_SD3_GEN.forward; "none" is TSD-SR
    and Chain-of-Zoom's whole-image mode (inference_coz_full.py).
    """
    scaled = latent_format.process_in(latent)
    if shift == "symmetric":
        return scaled
    # Not every format has a shift_factor, so the shift is taken from the value that zero maps to.
    return scaled - latent_format.process_in(torch.zeros_like(latent))


def scale_to_vae(latent: Tensor, latent_format: LatentFormat, shift: LatentShift) -> Tensor:
    """Convert a result of the model, after `process_out`, to the latent that the VAE decodes.

    Args:
        latent: (B, C, h, w), in the VAE's scale with the format's shift added.
        latent_format: The latent format of the model.
        shift: "none" removes the shift that process_out added; the others keep it.

    Returns:
        Same shape.
    """
    if shift == "none":
        return latent - latent_format.process_out(torch.zeros_like(latent))
    return latent


def make_one_step_noise(latent: Tensor, sampling: ModelSampling) -> Tensor:
    """Make the noise for a sampler that starts at sigma_max, so that the network's input is ``latent``.

    The model's x0 prediction from there is the one-step result: z - v for a flow model (sigma 1),
    (z - sqrt(1 - a) eps) / sqrt(a) for an eps model, sqrt(a) z - sqrt(1 - a) v for v-prediction.

    Args:
        latent: (B, C, h, w) in the model's scale.
        sampling: The model's ``model_sampling``. Its noise_scaling and calculate_input are linear, so
            applying both to the value 1 gives the product of their factors.

    Returns:
        Same shape.
    """
    sigma = sampling.sigma_max.reshape(1).to(latent)
    one = torch.ones(1, *[1] * (latent.ndim - 1)).to(latent)
    noised = sampling.noise_scaling(sigma, one, torch.zeros_like(one), max_denoise=True)
    return latent / sampling.calculate_input(sigma, noised)


def pad_to_multiple(image: Tensor, multiple: int = SIDE_MULTIPLE_PIXELS) -> Tensor:
    """Extend an image to the right and down to sides that are multiples of ``multiple``.

    Args:
        image: (B, C, H, W).
        multiple: Number of pixels.

    Returns:
        (B, C, H', W'): mirrored where the side is longer than the added part, and otherwise with
        repeated edge pixels. It is ``image`` itself if nothing is added.
    """
    for axis in (0, 1):
        side = image.shape[-1 - axis]
        added = -side % multiple
        if added:
            padding = [0, added, 0, 0] if axis == 0 else [0, 0, 0, added]
            image = F.pad(image, padding, mode="reflect" if side > added else "replicate")
    return image
