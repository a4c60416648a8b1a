"""Sharpen views by diffusion inversion with ComfyUI's sampler."""

from collections.abc import Callable
from math import ceil
from pathlib import Path

import comfy.model_management
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from comfy.ldm.modules.attention import optimized_attention_for_device
from comfy.model_base import BaseModel, ModelType
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...coz.detail.adaptive import adapt_guidance, adapt_timesteps, score_complexity
from ...coz.inversion import (
    LQ_MULTIPLE_PIXELS,
    SCALE,
    START_TIMESTEPS,
    TIMESTEP_SPACING,
    enlarge_unclamped,
    plan_timesteps,
)
from ...coz.latent import pad_to_multiple
from ...coz.networks.noise_predictor import NoisePredictor, read_sizes, sample_noise
from ...coz.resample import resize
from ...coz.weights.invsr import read_noise_predictor
from .latents import MAX_SEED, decode, encode, explain_missing_pooled, require_conditioning_width
from .messages import give_notice_once
from .options import require_choice, require_range
from .sampling import MAX_CFG, explain_view_out_of_memory, get_model_family

MAX_SAMPLING_STEPS = max(START_TIMESTEPS) // TIMESTEP_SPACING
START_CHOICES = ["auto", *map(str, START_TIMESTEPS)]

PREDICTOR_KEY = "coz_noise_predictor"
"""Key under which a MODEL keeps its noise predictor."""


def attach_predictor(model: ModelPatcher, path: Path) -> ModelPatcher:
    """Return a copy of an SD 2 model that carries the noise predictor of a file.

    ComfyUI loads and unloads the predictor together with the model.
    """
    network: BaseModel = model.model
    family = get_model_family(model)
    if family != "SD20" or network.model_type is not ModelType.EPS:
        kind = network.model_type.name.lower().replace("_", "-")
        raise ValueError(
            f"InvSR's noise predictor is for SD-Turbo, an SD20 model that predicts noise (eps), but "
            f"model is {family} ({kind}): load sd_turbo.safetensors in Load Checkpoint"
        )
    weights = read_noise_predictor(path)
    attend = optimized_attention_for_device(model.load_device)
    predictor = NoisePredictor(read_sizes(weights), comfy.ops.manual_cast, attend)
    predictor.load_state_dict(weights)
    patcher = ModelPatcher(
        predictor.requires_grad_(False),
        load_device=model.load_device,
        offload_device=model.offload_device,
    )
    model = model.clone()
    model.set_additional_models(PREDICTOR_KEY, [patcher])
    return model


@explain_view_out_of_memory
def sharpen_by_inversion(
    model: ModelPatcher,
    vae: VAE,
    positive,
    negative,
    crop: Tensor,
    zoomed: Tensor,
    sampling_steps: int,
    start: str,
    cfg: float,
    adaptive: bool,
    seed: int,
    draw_noise: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Sharpen views (B, 3, H, W) by diffusion inversion, as InvSR does, and return an IMAGE.

    ``crop`` is the input from which ``zoomed`` was enlarged. The predictor works for 4x only: if ``crop``
    is not exactly a quarter of ``zoomed``, ``zoomed`` is downscaled to a quarter and used instead.
    """
    require_range("sampling_steps", sampling_steps, 1, MAX_SAMPLING_STEPS)
    require_range("cfg", cfg, 1, MAX_CFG)
    require_range("seed", seed, 0, MAX_SEED)
    require_choice("start", start, START_CHOICES)
    timesteps = plan_timesteps(sampling_steps, None if start == "auto" else int(start))
    if not model.get_additional_models_with_key(PREDICTOR_KEY):
        raise ValueError(
            f"model is {get_model_family(model)} and has no noise predictor: connect the model of CoZ "
            "Load InvSR"
        )
    require_conditioning_width(model, "positive", positive)
    require_conditioning_width(model, "negative", negative)
    height, width = zoomed.shape[-2:]
    quarter = ceil(height / SCALE), ceil(width / SCALE)
    if crop.shape[-2:] != quarter:
        give_notice_once(
            f"InvSR enlarges by {SCALE} only: to make {width} x {height} pixels it needs an input of "
            f"{quarter[1]} x {quarter[0]}, but the input here has another size. So the enlarged view, "
            f"downscaled to {quarter[1]} x {quarter[0]}, is used as the input"
        )
        crop = resize(zoomed, *quarter).clamp(0, 1)
    crop = crop.contiguous()  # the rounding of convolutions depends on the memory layout
    parts = [(crop, timesteps, cfg)]
    if adaptive:
        parts = [
            (lq, adapt_timesteps(timesteps, score), adapt_guidance(cfg, score))
            for lq, score in zip(crop.split(1), score_complexity(crop), strict=True)
        ]
    conditionings, noise = (positive, negative), (seed, draw_noise)
    sharp = [_sharpen_inputs(model, vae, *conditionings, *part, *noise) for part in parts]
    return torch.cat(sharp)[:, :height, :width]


def _sharpen_inputs(
    model: ModelPatcher, vae: VAE, positive, negative, lq, timesteps, cfg, seed, draw_noise
) -> Tensor:
    """Enlarge inputs (B, 3, h, w) four times and sharpen them, and return an IMAGE."""
    height, width = lq.shape[-2:]
    lq = pad_to_multiple(lq, LQ_MULTIPLE_PIXELS)
    latent = encode(vae, enlarge_unclamped(lq), model)
    (predictor,) = model.get_additional_models_with_key(PREDICTOR_KEY)
    comfy.model_management.load_models_gpu([predictor])
    moments = predictor.model(lq.to(predictor.load_device), timesteps[0] - 1).to(latent)
    if draw_noise:
        normal = draw_noise(latent, vae.spacial_compression_encode())
    else:
        normal = comfy.sample.prepare_noise(latent, seed)
    noise = sample_noise(moments, normal.to(moments))
    levels = model.get_model_object("model_sampling").sigmas
    sigmas = torch.cat([levels[torch.tensor(timesteps) - 1].cpu(), torch.zeros(1)])
    with explain_missing_pooled(positive=positive, negative=negative):
        denoised = comfy.sample.sample_custom(
            model,
            noise,
            cfg,
            comfy.samplers.sampler_object("euler"),
            sigmas,
            positive,
            negative,
            latent,
            callback=latent_preview.prepare_callback(model, len(timesteps)),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    return decode(vae, denoised, SCALE * height, SCALE * width)
