from comfy_api.latest import io

from ..host.images import to_bchw
from ..host.inversion import MAX_SAMPLING_STEPS, START_CHOICES, sharpen_by_inversion
from ..host.messages import finish_with_notices
from ..host.sampling import MAX_CFG
from .sr_step import make_seed_input


def make_sampling_steps_input() -> io.Input:
    return io.Int.Input(
        "sampling_steps",
        default=1,
        min=1,
        max=MAX_SAMPLING_STEPS,
        tooltip="Number of sampling steps for each view. 1 stays closest to the view; with more, the "
        "model invents more.",
    )


def make_start_input() -> io.Input:
    return io.Combo.Input(
        "start",
        options=START_CHOICES,
        default="auto",
        advanced=True,
        tooltip="Timestep at which sampling starts. A lower timestep adds less noise to the view, so it keeps "
        "more of the view. sampling_steps can be at most start / 50. auto: 200, or 250 with five sampling "
        "steps.",
    )


def make_cfg_input() -> io.Input:
    return io.Float.Input(
        "cfg",
        default=1.0,
        min=1.0,
        max=float(MAX_CFG),
        step=0.1,
        advanced=True,
        tooltip="How strictly the model follows the text. The model was trained for 1. With 1 the negative "
        "text is ignored, and sampling takes half the time.",
    )


def make_adaptive_input() -> io.Input:
    return io.Boolean.Input(
        "adaptive",
        default=False,
        tooltip="Adapts sampling_steps and cfg to the amount of detail in each view. A view with medium detail "
        "gets one more sampling step, a view with much detail two more. cfg is multiplied by 0.8 for the "
        "plainest views and by up to 1.3 for the most detailed ones, but stays between 1 and 10.",
    )


class CoZInvSRStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZInvSRStep",
            display_name="CoZ InvSR Step",
            category="Chain-of-Zoom/step",
            description="Enlarges a crop four times and sharpens it with InvSR. InvSR predicts the noise "
            "from which SD-Turbo generates a sharp version of the crop in 1 to 5 sampling steps. The files "
            "of InvSR are for non-commercial use only.",
            search_aliases=["InvSR", "diffusion inversion", "super resolution", "SD-Turbo"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SD-Turbo with the noise predictor of InvSR, from CoZ Load InvSR.",
                ),
                io.Vae.Input("vae", tooltip="The VAE of SD-Turbo."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The encoded text, from CLIP Text Encode. InvSR was trained with one fixed "
                    'text. The template "InvSR 4x and zoom" contains this text.',
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip="The encoded negative text. It has an effect only if cfg is above 1.",
                ),
                io.Image.Input(
                    "crop",
                    tooltip="The part of the frame, before it is enlarged: the output crop of "
                    "Crop-Center-Zoom. It may be a batch.",
                ),
                io.Image.Input(
                    "zoomed",
                    tooltip="The view in the size of the result: the output zoomed of Crop-Center-Zoom. If "
                    'it is not four times as large as the input "crop", the node downscales it to a quarter and '
                    'uses this instead of "crop".',
                ),
                make_sampling_steps_input(),
                make_start_input(),
                make_cfg_input(),
                make_adaptive_input(),
                make_seed_input("Seed of the random part of the noise."),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE",
                    display_name="image",
                    tooltip="The sharpened view, in the size of zoomed.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        vae,
        positive,
        negative,
        crop,
        zoomed,
        sampling_steps=1,
        start="auto",
        cfg=1.0,
        adaptive=False,
        seed=0,
    ) -> io.NodeOutput:
        crop, zoomed = to_bchw(crop, "crop"), to_bchw(zoomed, "zoomed")
        if len(crop) != len(zoomed):
            raise ValueError(
                f"crop holds {len(crop)} images and zoomed {len(zoomed)}: connect both outputs of the same "
                "Crop-Center-Zoom"
            )
        sampling = sampling_steps, start, cfg, adaptive
        sharp = sharpen_by_inversion(model, vae, positive, negative, crop, zoomed, *sampling, seed)
        return io.NodeOutput(sharp, ui=finish_with_notices())
