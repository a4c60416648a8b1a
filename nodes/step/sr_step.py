from comfy_api.latest import io

from ...coz.latent import LATENT_SHIFTS
from ..host.images import to_bchw
from ..host.latents import MAX_SEED
from ..host.messages import finish_with_notices
from ..host.sampling import sharpen_in_one_step


def make_latent_shift_input() -> io.Input:
    return io.Combo.Input(
        "latent_shift",
        options=["auto", *LATENT_SHIFTS],
        default="auto",
        advanced=True,
        tooltip="When to apply the latent shift, which is a fixed offset between the values of SD3 and those "
        'of its VAE. auto: what the loaded LoRA needs, or the option "reference" if the LoRA does not say. '
        "reference: only when decoding, as in Chain-of-Zoom. symmetric: when encoding and decoding. none: "
        "never, as in TSD-SR. SD1.5, SD2.1 and SDXL have no shift.",
    )


def make_seed_input(tooltip: str) -> io.Input:
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=MAX_SEED,
        control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip=tooltip,
    )


class CoZSRStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSRStep",
            display_name="CoZ SR Step",
            category="Chain-of-Zoom",
            description="Sharpens an enlarged view with a one-step diffusion model, which invents detail "
            "that fits the text. The size stays the same. The model must be trained for this, such as "
            "SD3-medium with the Chain-of-Zoom LoRA. For any other checkpoint use CoZ Refine Step.",
            search_aliases=[
                "super resolution",
                "one-step diffusion",
                "diffusion upscale",
                "OSEDiff",
                "TSD-SR",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="A one-step super-resolution model: the model from CoZ Load SR LoRA, or a "
                    "checkpoint that the LoRA is merged into.",
                ),
                io.Vae.Input(
                    "vae",
                    tooltip="The VAE that belongs to model. For Chain-of-Zoom, take the VAE with the "
                    "fine-tuned encoder from CoZ Load SR LoRA.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The encoded text of what the view shows, from CoZ Encode Prompt. The text "
                    "may be empty.",
                ),
                io.Image.Input(
                    "image",
                    tooltip="The enlarged view: the output zoomed of Crop-Center-Zoom. It may be a batch.",
                ),
                make_latent_shift_input(),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="image", tooltip="The sharpened view, in the same size."
                )
            ],
        )

    @classmethod
    def execute(cls, model, vae, positive, image, latent_shift="auto") -> io.NodeOutput:
        sharp = sharpen_in_one_step(model, vae, positive, to_bchw(image), latent_shift)
        return io.NodeOutput(sharp, ui=finish_with_notices())
