from collections.abc import Callable
from math import isclose

import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
from comfy_api.latest import io
from torch import Tensor

from ..host.images import closing, notice, require_range, to_bchw
from .sr_step import MOST_SEED, decode, encode, naming_bare, require_width, seed_input

MOST_STEPS, MOST_CFG = 10000, 100
"""Of the host's sampling."""

MOST_SCHEDULED = 10**6
"""The host makes a schedule of steps / denoise: this many with all of its steps and 0.01."""

NATIVE_SIDES = {"SD15": 512, "SD20": 512, "SDXL": 1024, "SD3": 1024}


def denoise_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "cfg",
            default=5.0,
            min=0.0,
            max=float(MOST_CFG),
            step=0.1,
            tooltip="How strictly the text is followed. 1 ignores the negative text and takes half the time.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            default="euler",
            tooltip="The host's sampler.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            default="simple",
            tooltip="The host's noise schedule.",
        ),
        io.Float.Input(
            "denoise",
            default=0.35,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How much of the view is invented anew: low keeps it soft, high departs from it.",
        ),
    ]


def size_note(model, height: int, width: int, frame: str, size: str) -> str:
    """What to tell of a frame smaller than those that the model was trained with, else nothing."""
    family = type(model.model.model_config).__name__
    native = NATIVE_SIDES.get(family, 0)
    if min(height, width) >= native:
        return ""
    return (
        f"{family} draws best at {native} pixels, and {frame} has {width} x {height}: raise {size}"
    )


def refined(
    model,
    vae,
    positive,
    negative,
    image,
    steps,
    cfg,
    sampler_name,
    scheduler,
    denoise,
    seed,
    draw_noise: Callable[[Tensor], Tensor] | None = None,
) -> io.NodeOutput:
    """CoZ Refine Step of (B, 3, H, W), as the host's KSampler does it.

    ``draw_noise`` makes the noise to start from, given the latent; else it is drawn from ``seed``.
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
    noise = draw_noise(latent) if draw_noise else comfy.sample.prepare_noise(latent, seed)
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


class CoZRefineStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZRefineStep",
            display_name="CoZ Refine Step (any checkpoint)",
            category="Chain-of-Zoom/step",
            description="One zoom step with a checkpoint that was not trained for super-resolution (SD1.5, SDXL, SD3, "
            "...): noises the enlarged view a little and samples it again with the text. Slower and freer than CoZ SR "
            "Step.",
            search_aliases=[
                "refine",
                "img2img",
                "creative upscale",
                "enhance",
                "detail",
                "SD1.5",
                "SDXL",
            ],
            inputs=[
                io.Model.Input("model", tooltip="Any image model, with any LoRA."),
                io.Vae.Input("vae", tooltip="Its VAE."),
                io.Conditioning.Input("positive", tooltip="What the view shows."),
                io.Conditioning.Input("negative", tooltip="What it must not show."),
                io.Image.Input(
                    "image", tooltip="The enlarged view, zoomed of Crop-Center-Zoom. Batches work."
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=MOST_STEPS,
                    tooltip="Sampling steps; all run, on the part of the schedule that denoise leaves.",
                ),
                *denoise_inputs(),
                seed_input("Of the noise."),
            ],
            outputs=[io.Image.Output("IMAGE", display_name="image", tooltip="The refined view.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        positive,
        negative,
        image,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        seed=0,
    ) -> io.NodeOutput:
        image = to_bchw(image)
        if note := size_note(model, *image.shape[-2:], "this frame", "size"):
            notice(note)
        sampling = steps, cfg, sampler_name, scheduler, denoise
        refined_view = refined(model, vae, positive, negative, image, *sampling, seed)[0]
        return io.NodeOutput(refined_view, ui=closing())
