from comfy_api.latest import io

from ..host.images import to_bchw
from ..host.inversion import MAX_SAMPLING_STEPS, START_CHOICES, invert
from ..host.messages import show_closing
from ..host.sampling import MAX_CFG
from .sr_step import seed_input


def sampling_steps_input() -> io.Input:
    return io.Int.Input(
        "sampling_steps",
        default=1,
        min=1,
        max=MAX_SAMPLING_STEPS,
        tooltip="Number of sampling steps for each view. 1 stays closest to the view; with more, the "
        "model invents more.",
    )


def start_input() -> io.Input:
    return io.Combo.Input(
        "start",
        options=START_CHOICES,
        default="auto",
        advanced=True,
        tooltip="Timestep at which sampling starts, one of those that the predictor is trained for. A "
        "lower start keeps more of the view and allows fewer steps: at most start / 50. auto: 200, or 250 "
        "for five steps.",
    )


def cfg_input() -> io.Input:
    return io.Float.Input(
        "cfg",
        default=1.0,
        min=1.0,
        max=float(MAX_CFG),
        step=0.1,
        advanced=True,
        tooltip="How strictly the model follows the text. 1 is as trained, ignores the negative text "
        "and takes half the time.",
    )


def adaptive_input() -> io.Input:
    return io.Boolean.Input(
        "adaptive",
        default=False,
        tooltip="Adds one sampling step for a view of medium complexity and two for a complex one. "
        "Multiplies cfg by 0.8 for the simplest views and by up to 1.3 for the most complex ones.",
    )


class CoZInvSRStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZInvSRStep",
            display_name="CoZ InvSR Step",
            category="Chain-of-Zoom/step",
            description="Sharpens a crop to four times its size with InvSR: finds the noise from which "
            "SD-Turbo makes this crop sharp, and samples from there in 1 to 5 steps. InvSR's files are for "
            "non-commercial use only.",
            search_aliases=["InvSR", "diffusion inversion", "super resolution", "SD-Turbo"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="SD-Turbo with InvSR's predictor, from CoZ Load InvSR."
                ),
                io.Vae.Input("vae", tooltip="The VAE of SD-Turbo."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The encoded text, from CLIP Text Encode. InvSR is trained with one fixed "
                    "text, which the template holds.",
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip="The encoded negative text. It counts only if cfg is above 1.",
                ),
                io.Image.Input(
                    "crop",
                    tooltip="The small view: the output crop of Crop-Center-Zoom. A batch is processed at "
                    "once.",
                ),
                io.Image.Input(
                    "zoomed",
                    tooltip="The view at the size of the result: the output zoomed of Crop-Center-Zoom. It "
                    "replaces crop where it is not four times as large.",
                ),
                sampling_steps_input(),
                start_input(),
                cfg_input(),
                adaptive_input(),
                seed_input("Seed of the noise around the predicted mean."),
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
        sharp = invert(model, vae, positive, negative, crop, zoomed, *sampling, seed)
        return io.NodeOutput(sharp, ui=show_closing())
