import torch
from comfy_api.latest import io

from ...coz.detail.adaptive import adapt_denoise
from ..host.control import DEFAULT_STRENGTH, HINTS, MAX_STRENGTH, add_control, choose_control
from ..host.images import to_bchw
from ..host.messages import finish_with_notices, give_notice
from ..host.sampling import (
    MAX_CFG,
    MAX_SAMPLING_STEPS,
    SAMPLERS,
    SCHEDULERS,
    get_model_family,
    refine,
)
from .sr_step import make_seed_input

NATIVE_SIDE_PIXELS = {"SD15": 512, "SD20": 512, "SDXL": 1024, "SD3": 1024}
"""Side of the images that a model family was trained with."""


def make_sampling_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "cfg",
            default=5.0,
            min=0.0,
            max=float(MAX_CFG),
            step=0.1,
            tooltip="How strictly the model follows the text. With 1 the negative text is ignored, and "
            "sampling takes half the time.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=SAMPLERS,
            default="euler",
            tooltip="The sampling method, as in KSampler.",
        ),
        io.Combo.Input(
            "scheduler",
            options=SCHEDULERS,
            default="simple",
            tooltip="The noise schedule, as in KSampler.",
        ),
        io.Float.Input(
            "denoise",
            default=0.35,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="How much of the view is generated again. At a low value the result stays close to the "
            "view, but also as soft as the view. At a high value it departs from the view.",
        ),
    ]


def make_adaptive_denoise_input() -> io.Input:
    return io.Boolean.Input(
        "adaptive",
        default=False,
        optional=True,
        tooltip="Adapts denoise to the amount of detail in each view: multiplies it by 0.8 for the "
        "plainest views and by up to 1.3 for the most detailed ones. Plain areas then change less.",
    )


def make_control_inputs(**socket_options) -> list[io.Input]:
    return [
        io.ControlNet.Input(
            "control_net",
            optional=True,
            **socket_options,
            tooltip="A ControlNet from Load ControlNet Model, made for the same family as model, such as "
            "SDXL. A tile ControlNet keeps the result close to the view, so denoise can be higher.",
        ),
        io.Float.Input(
            "control_strength",
            default=DEFAULT_STRENGTH,
            min=0.0,
            max=float(MAX_STRENGTH),
            step=0.05,
            optional=True,
            tooltip="How strongly the ControlNet acts. 0: not at all.",
        ),
        io.Float.Input(
            "control_end",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="The ControlNet acts up to this fraction of the noise schedule. With a low denoise "
            "only the last part of the schedule runs. For example, at a denoise of 0.35 a value below "
            "about 0.65 turns the ControlNet off.",
        ),
        io.Combo.Input(
            "control_hint",
            options=HINTS,
            default=HINTS[0],
            optional=True,
            tooltip="What the ControlNet sees. zoomed view: the enlarged view that is sharpened. none: "
            "the ControlNet is not used.",
        ),
    ]


def write_small_size_notice(
    model, height: int, width: int, image_name: str, input_name: str
) -> str:
    """Return a notice if an image is smaller than those that the model was trained with, otherwise "".

    The notice calls the image ``image_name``, and asks the user to raise the input ``input_name``.
    """
    family = get_model_family(model)
    native = NATIVE_SIDE_PIXELS.get(family, 0)
    if min(height, width) >= native:
        return ""
    return f"{family} works best at {native} pixels, but {image_name} has {width} x {height}: raise {input_name}"


class CoZRefineStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZRefineStep",
            display_name="CoZ Refine Step (any checkpoint)",
            category="Chain-of-Zoom/step",
            description="Sharpens an enlarged view with a checkpoint that was not trained for "
            "super-resolution, such as SD1.5, SDXL or SD3. It adds some noise to the view and samples it "
            "again with the text (img2img). The size stays the same. It is slower than CoZ SR Step, and "
            "its result departs further from the view.",
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
                io.Model.Input(
                    "model", tooltip="Any image model: SD1.5, SDXL, SD3 and others, with any LoRA."
                ),
                io.Vae.Input("vae", tooltip="The VAE that belongs to model."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The encoded text of what the view shows, from CLIP Text Encode.",
                ),
                io.Conditioning.Input(
                    "negative", tooltip="The encoded text of what the view must not show."
                ),
                io.Image.Input(
                    "image",
                    tooltip="The enlarged view: the output zoomed of Crop-Center-Zoom. It may be a batch.",
                ),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=MAX_SAMPLING_STEPS,
                    tooltip="Number of sampling steps. With a low denoise all of them still run, but only "
                    "within the last part of the noise schedule.",
                ),
                *make_sampling_inputs(),
                make_seed_input("Seed of the noise."),
                make_adaptive_denoise_input(),
                *make_control_inputs(),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="image", tooltip="The refined view, in the same size."
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
        image,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        seed=0,
        adaptive=False,
        control_net=None,
        control_strength=DEFAULT_STRENGTH,
        control_end=1.0,
        control_hint=HINTS[0],
    ) -> io.NodeOutput:
        image = to_bchw(image)
        if notice := write_small_size_notice(
            model, *image.shape[-2:], "this view", "size of Chain Loop or CoZ First Frame"
        ):
            give_notice(notice)
        sampling = steps, cfg, sampler_name, scheduler
        control = choose_control(control_net, control_strength, control_end, control_hint)
        refined = []
        views = adapt_denoise(image, denoise) if adaptive else [(image, denoise)]
        for view, view_denoise in views:
            conditionings = add_control(model, vae, positive, negative, view, control)
            refined.append(refine(model, vae, *conditionings, view, *sampling, view_denoise, seed))
        return io.NodeOutput(torch.cat(refined), ui=finish_with_notices())
