"""Sharpen views with ComfyUI's samplers."""

from collections.abc import Callable
from math import isclose

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
import torch.nn.functional as F
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...coz.latent import make_one_step_noise, scale_to_model, scale_to_vae
from .latents import MAX_SEED, decode, encode, explain_missing_pooled, require_conditioning_width
from .memory import explain_out_of_memory
from .options import require_range

LATENT_SHIFT_KEY = "coz_latent_shift"
"""Key of the attachment of a MODEL in which CoZ Load SR LoRA keeps the latent shift of its LoRA."""

explain_view_out_of_memory = explain_out_of_memory(
    "A view of this size", "lower size or tile, choose a smaller model"
)

SAMPLERS = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS = comfy.samplers.KSampler.SCHEDULERS

MAX_SAMPLING_STEPS, MAX_CFG = 10000, 100
"""The limits of ComfyUI's KSampler."""

MAX_SCHEDULE_STEPS = 10**6
"""Maximum length of the schedule that ComfyUI computes, steps / denoise: KSampler reaches it with its
maximum of 10000 steps and its smallest denoise, 0.01."""


def get_model_family(model: ModelPatcher) -> str:
    """Return ComfyUI's name for the model's family, such as SD15."""
    network: BaseModel = model.model
    return type(network.model_config).__name__


class OneStepSampler(comfy.samplers.KSAMPLER):
    """Run the network once and return its x0 prediction, without a wait for the GPU.

    ComfyUI's sampler lcm gives the same result, but it reads both sigmas, which waits for the GPU. ComfyUI's
    euler loses digits where sigma is large.
    """

    def __init__(self, **kwargs):
        super().__init__(predict_once, **kwargs)

    def max_denoise(self, model_wrap, sigmas, **kwargs) -> bool:
        return True  # ``sharpen_in_one_step`` starts at sigma_max


def predict_once(
    model, x, sigmas, extra_args=None, callback=None, disable=None, **kwargs
) -> Tensor:
    """Predict x0 at the first of ``sigmas``, as a sampler function of k-diffusion."""
    sigma = sigmas[0]
    denoised = model(x, sigma * x.new_ones(len(x)), **(extra_args or {}))
    if callback is not None:
        callback({"x": x, "i": 0, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
    return denoised


@explain_view_out_of_memory
def sharpen_in_one_step(
    model: ModelPatcher, vae: VAE, positive, image: Tensor, latent_shift: str
) -> Tensor:
    """Sharpen views (B, 3, H, W) with a one-step model: return its x0 prediction as an IMAGE.

    ``latent_shift`` is "auto" or one of ``LATENT_SHIFTS``.
    """
    require_conditioning_width(model, "positive", positive)
    if latent_shift == "auto":
        latent_shift = model.get_attachment(LATENT_SHIFT_KEY) or "reference"
    latent_format = model.get_model_object("latent_format")
    sampling = model.get_model_object("model_sampling")
    latent = scale_to_model(encode(vae, image, model), latent_format, latent_shift)
    with explain_missing_pooled(positive=positive):
        denoised = comfy.sample.sample_custom(
            model,
            noise=make_one_step_noise(latent, sampling),
            cfg=1.0,
            sampler=OneStepSampler(),
            sigmas=F.pad(sampling.sigma_max.reshape(1).float(), (0, 1)),
            positive=positive,
            negative=positive,
            latent_image=torch.zeros_like(latent),
            callback=latent_preview.prepare_callback(model, 1),
            disable_pbar=True,
            seed=0,
        )
    return decode(vae, scale_to_vae(denoised, latent_format, latent_shift), *image.shape[-2:])


@explain_view_out_of_memory
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
    """Sample views (B, 3, H, W) again, as ComfyUI's KSampler does it, and return an IMAGE.

    ``draw_noise`` makes the noise from the latent and its reduction, the image pixels along a side of one
    latent pixel. Without it, ``seed`` makes it. Chain Loop's name for ``steps`` is sampling_steps.
    """
    require_range("steps (sampling_steps)", steps, 1, MAX_SAMPLING_STEPS)
    require_range("cfg", cfg, 0, MAX_CFG)
    require_range("denoise", denoise, 0, 1)
    require_range("seed", seed, 0, MAX_SEED)
    if steps > denoise * MAX_SCHEDULE_STEPS > 0:
        raise ValueError(
            f"denoise must be 0 or at least {steps / MAX_SCHEDULE_STEPS:g} for {steps} steps, got {denoise:g}"
        )
    # kl_optimal divides by the length of the schedule, steps / denoise, minus 1.
    if scheduler == "kl_optimal" and int(steps / max(denoise, 0.5)) == 1:
        raise ValueError(
            "scheduler kl_optimal needs a schedule of at least 2 steps: set steps to 2, got 1, or choose "
            "another scheduler"
        )
    require_conditioning_width(model, "positive", positive)
    if not isclose(cfg, 1):  # at cfg 1 ComfyUI does not use negative
        require_conditioning_width(model, "negative", negative)
    # Some of ComfyUI's samplers add 1 to the seed, and torch takes at most 64 bits.
    seed = min(seed, MAX_SEED - 1)
    latent = comfy.sample.fix_empty_latent_channels(model, encode(vae, image, model))
    if draw_noise:
        noise = draw_noise(latent, vae.spacial_compression_encode())
    else:
        noise = comfy.sample.prepare_noise(latent, seed)
    with explain_missing_pooled(positive=positive, negative=negative):
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
