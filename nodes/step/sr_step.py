from contextlib import contextmanager

import comfy.sample
import comfy.samplers
import latent_preview
import torch
from comfy_api.latest import io
from torch import Tensor

from ...coz.latent import (
    LATENT_SHIFTS,
    MULTIPLE_OF,
    one_step_noise,
    pad_to_multiple,
    to_model,
    to_vae,
)
from ..host.images import closing, require_finite, to_bchw, to_image, to_rgb

LATENT_SHIFT = "coz_latent_shift"
"""Attached to a MODEL by CoZ Load SR LoRA: what its LoRA was made for."""

MOST_SEED = 2**64 - 1

FP32_VAE = "It overflows in half precision: start ComfyUI with --fp32-vae"


def latent_shift_input() -> io.Input:
    return io.Combo.Input(
        "latent_shift",
        options=["auto", *LATENT_SHIFTS],
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


def encode(vae, image: Tensor, model) -> Tensor:
    """The view as the VAE's latent, padded to sides that the model can take."""
    vae.throw_exception_if_invalid()
    compression = vae.spacial_compression_encode()
    require_side(model, image, compression)
    # One memory layout, whichever node made the image: convolutions round differently in another.
    padded = to_image(pad_to_multiple(image, max(MULTIPLE_OF, 2 * compression))).contiguous()
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


def decode(vae, latent: Tensor, height: int, width: int) -> io.NodeOutput:
    require_finite(
        latent,
        lambda: "The diffusion model",
        "It overflows in half precision: load it in bfloat16 or start ComfyUI with --fp32-unet or --bf16-unet",
    )
    # An RGBA VAE (Qwen-Image 2.1) decodes alpha too. Every view that it encoded was opaque.
    image = to_rgb(vae.decode(latent))
    image = image.reshape(-1, *image.shape[-3:])  # of a video VAE: (B, 1, H, W, C)
    require_finite(image, lambda: "The VAE's decoder", FP32_VAE)
    cropped = image[:, :height, :width].movedim(-1, 1).float()
    return io.NodeOutput(to_image(cropped.contiguous(memory_format=torch.channels_last)))


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


def require_side(model, image: Tensor, compression: int) -> None:
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
            search_aliases=[
                "super resolution",
                "one-step diffusion",
                "diffusion upscale",
                "OSEDiff",
                "TSD-SR",
            ],
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
        decoded = decode(vae, to_vae(denoised, latent_format, latent_shift), *image.shape[-2:])
        return io.NodeOutput(*decoded.args, ui=closing())
