from contextlib import contextmanager
from math import isclose

import comfy.sample
import comfy.samplers
import latent_preview
import torch
from comfy_api.latest import io
from torch import Tensor

from nodes import common_ksampler

from ..coz.latent import MULTIPLE_OF, one_step_noise, pad_to_multiple, to_model, to_vae
from .host import SEARCH_ALIASES, notice, to_bchw, to_image

LATENT_SHIFT = "coz_latent_shift"
"""Attached to a MODEL by CoZ Load SR LoRA: what its LoRA was made for."""

LATENT_SHIFTS = ["auto", "reference", "symmetric", "none"]

MOST_SEED = 2**64 - 1

LIMITS = {"steps": (1, 10000), "cfg": (0, 100), "denoise": (0, 1)}
"""Of the host's sampling."""

MOST_SCHEDULED = 10**6
"""The host makes a schedule of steps / denoise: this many with all of its steps and 0.01."""

NATIVE_SIDES = {"SD15": 512, "SD20": 512, "SDXL": 1024, "SD3": 1024}


def latent_shift_input() -> io.Input:
    return io.Combo.Input(
        "latent_shift",
        options=LATENT_SHIFTS,
        default="auto",
        advanced=True,
        tooltip="Where the shift of the latent scale is applied: reference = on decode only, as Chain-of-Zoom does it; "
        "symmetric = on encode and decode; none = on neither (TSD-SR). auto: what the loaded LoRA needs, else reference. "
        "SD1.5, SD2.1 and SDXL have no shift.",
    )


def seed_input(tooltip: str) -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MOST_SEED,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip=tooltip,
    )


def denoise_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "cfg",
            default=5.0,
            min=0.0,
            max=100.0,
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


def require_finite(values: Tensor, maker: str, way_out: str) -> Tensor:
    bad = int((~values.isfinite()).sum())
    if bad:
        raise ValueError(
            f"{maker} made {bad} values that are NaN or infinite, which would give a black image: it "
            f"overflows in half precision. {way_out}"
        )
    return values


def encode(vae, image: Tensor, model) -> Tensor:
    """The view as the VAE's latent, padded to sides that the model can take."""
    vae.throw_exception_if_invalid()
    padded = pad_to_multiple(image, max(MULTIPLE_OF, 2 * vae.spacial_compression_encode()))
    latent = vae.encode(to_image(padded)).float()
    expected = model.get_model_object("latent_format").latent_channels
    if latent.shape[1] != expected:
        raise ValueError(
            f"vae makes latents of {latent.shape[1]} channels and model takes {expected}: connect the "
            "vae of the same checkpoint, or of the same family as model"
        )
    return require_finite(latent, "The VAE's encoder", "Start ComfyUI with --fp32-vae")


def decode(vae, latent: Tensor, height: int, width: int) -> io.NodeOutput:
    require_finite(
        latent,
        "The diffusion model",
        "Load it in bfloat16 or start ComfyUI with --fp32-unet or --bf16-unet",
    )
    image = vae.decode(latent)
    image = image.reshape(-1, *image.shape[-3:])  # of a video VAE: (B, 1, H, W, C)
    require_finite(image, "The VAE's decoder", "Start ComfyUI with --fp32-vae")
    cropped = image[:, :height, :width].movedim(-1, 1).float()
    return io.NodeOutput(to_image(cropped.contiguous(memory_format=torch.channels_last)))


def require_limits(**sampling: float) -> None:
    """Refuse what the schema would, were it no linked value."""
    for name, value in sampling.items():
        least, most = LIMITS[name]
        if not least <= value <= most:
            raise ValueError(f"{name} must be {least} to {most}, got {value:g}")


def require_width(model, name: str, text) -> None:
    """Refuse the text of another model family before a matrix product does."""
    config = model.model.model_config.unet_config
    expected = config.get("context_dim") or config.get("context_embedder_config", {}).get(
        "params", {}
    ).get("in_features")
    found = text[0][0].shape[-1]
    if isinstance(expected, int) and found != expected:
        raise ValueError(
            f"{name} has {found} values a token and model takes {expected}: encode the text with "
            "the clip of the same checkpoint, or of the same family as model"
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
    model, vae, positive, negative, image, steps, cfg, sampler_name, scheduler, denoise, seed
) -> io.NodeOutput:
    """CoZ Refine Step of (B, 3, H, W)."""
    require_limits(steps=steps, cfg=cfg, denoise=denoise)
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
    latent = {"samples": encode(vae, image, model)}
    with naming_bare(positive=positive, negative=negative):
        denoised = common_ksampler(
            model, seed, steps, cfg, sampler_name, scheduler, positive, negative, latent, denoise
        )[0]["samples"]
    return decode(vae, denoised, *image.shape[-2:])


class CoZSRStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSRStep",
            display_name="CoZ SR Step",
            category="Chain-of-Zoom",
            description="One super-resolution step with a one-step diffusion model: makes an enlarged, soft view sharp "
            "and invents the detail that the text names. The size stays. The model must be trained for it, as SD3-medium "
            "with the Chain-of-Zoom LoRA is; for any other checkpoint use CoZ Refine Step.",
            search_aliases=[*SEARCH_ALIASES, "chain of zoom", "OSEDiff", "TSD-SR", "one step"],
            inputs=[
                io.Model.Input("model", tooltip="A one-step SR model: see CoZ Load SR LoRA."),
                io.Vae.Input("vae", tooltip="Its VAE, with the LoRA's own encoder if it has one."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="What the view shows, from CoZ Encode Prompt. An empty text works.",
                ),
                io.Image.Input(
                    "image", tooltip="The enlarged view, zoomed of Crop-Center-Zoom. Batches work."
                ),
                latent_shift_input(),
            ],
            outputs=[io.Image.Output("IMAGE", display_name="image", tooltip="The sharp view.")],
        )

    @classmethod
    def execute(cls, model, vae, positive, image, latent_shift="auto") -> io.NodeOutput:
        image = to_bchw(image)
        require_width(model, "positive", positive)
        if latent_shift == "auto":
            latent_shift = model.get_attachment(LATENT_SHIFT) or "reference"
        latent_format = model.get_model_object("latent_format")
        sampling = model.get_model_object("model_sampling")
        latent = to_model(encode(vae, image, model), latent_format, latent_shift)
        # lcm's last step is the x0 prediction itself; euler's loses digits where sigma is large.
        with naming_bare(positive=positive):
            denoised = comfy.sample.sample_custom(
                model,
                noise=one_step_noise(latent, sampling),
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
        return decode(vae, to_vae(denoised, latent_format, latent_shift), *image.shape[-2:])


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
            search_aliases=[*SEARCH_ALIASES, "img2img", "refine", "SD1.5", "SDXL"],
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
                    max=10000,
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
        return refined(model, vae, positive, negative, image, *sampling, seed)
