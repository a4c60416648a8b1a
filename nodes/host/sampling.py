"""One step of super-resolution by the host's samplers: the views in, sharp ones out."""

from collections.abc import Callable
from math import isclose

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...coz.latent import make_one_step_noise, scale_to_model, scale_to_vae
from .latents import MOST_SEED, decode, encode, naming_bare, require_width
from .options import require_range

LATENT_SHIFT = "coz_latent_shift"
"""Attached to a MODEL by CoZ Load SR LoRA: what its LoRA was made for."""

SAMPLERS = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS = comfy.samplers.KSampler.SCHEDULERS

MOST_STEPS, MOST_CFG = 10000, 100
"""Of the host's sampling."""

MOST_SCHEDULED = 10**6
"""The host makes a schedule of steps / denoise: this many with all of its steps and 0.01."""


def family_of(model: ModelPatcher) -> str:
    """Return the host's name of a model's family, such as SD15."""
    network: BaseModel = model.model
    return type(network.model_config).__name__


def sharpen(model: ModelPatcher, vae: VAE, positive, image: Tensor, latent_shift: str) -> Tensor:
    """Take a one-step model's x0 prediction of views (B, 3, H, W), and return it as an IMAGE.

    ``latent_shift`` is "auto" or one of ``LATENT_SHIFTS``.
    """
    require_width(model, "positive", positive)
    if latent_shift == "auto":
        latent_shift = model.get_attachment(LATENT_SHIFT) or "reference"
    latent_format = model.get_model_object("latent_format")
    sampling = model.get_model_object("model_sampling")
    latent = scale_to_model(encode(vae, image, model), latent_format, latent_shift)
    # lcm's last step is the x0 prediction itself; euler's loses digits where sigma is large.
    with naming_bare(positive=positive):
        denoised = comfy.sample.sample_custom(
            model,
            noise=make_one_step_noise(latent, sampling),
            cfg=1.0,
            sampler=comfy.samplers.sampler_object("lcm"),
            sigmas=torch.tensor([float(sampling.sigma_max), 0.0]),
            positive=positive,
            negative=positive,
            latent_image=torch.zeros_like(latent),
            callback=latent_preview.prepare_callback(model, 1),
            disable_pbar=True,
            seed=0,
        )
    return decode(vae, scale_to_vae(denoised, latent_format, latent_shift), *image.shape[-2:])


def refine(
    model: ModelPatcher,
    vae: VAE,
    positive,
    negative,
    image,
    steps,
    cfg,
    sampler_name,
    scheduler,
    denoise,
    seed,
    draw_noise: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Sample views (B, 3, H, W) again, as the host's KSampler does it, and return an IMAGE.

    ``draw_noise`` makes the noise to start from, given the latent and how many pixels one of its own
    stands for; else it is drawn from ``seed``.
    """
    require_range("steps (sampling_steps)", steps, 1, MOST_STEPS)  # as the loops name them
    require_range("cfg", cfg, 0, MOST_CFG)
    require_range("denoise", denoise, 0, 1)
    require_range("seed", seed, 0, MOST_SEED)
    if steps > denoise * MOST_SCHEDULED > 0:
        raise ValueError(
            f"denoise must be 0 or at least {steps / MOST_SCHEDULED:g} for {steps} steps, got {denoise:g}"
        )
    # The host divides by what is one less than the steps of the schedule.
    if scheduler == "kl_optimal" and int(steps / max(denoise, 0.5)) == 1:
        raise ValueError(
            "scheduler kl_optimal makes no schedule of one step: set steps to 2, got 1, or choose another scheduler"
        )
    require_width(model, "positive", positive)
    if not isclose(cfg, 1):  # else the host leaves it out
        require_width(model, "negative", negative)
    # Some of the host's samplers add one to it, and more than 64 bits torch does not take.
    seed = min(seed, MOST_SEED - 1)
    latent = comfy.sample.fix_empty_latent_channels(model, encode(vae, image, model))
    if draw_noise:
        noise = draw_noise(latent, vae.spacial_compression_encode())
    else:
        noise = comfy.sample.prepare_noise(latent, seed)
    with naming_bare(positive=positive, negative=negative):
        denoised = comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler_name,
            scheduler,
            positive,
            negative,
            latent,
            denoise=denoise,
            callback=latent_preview.prepare_callback(model, steps),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    return decode(vae, denoised, *image.shape[-2:])
