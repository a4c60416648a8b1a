import json

from comfy_api.latest import io

from ...coz.chain.schema import MAX_STEPS
from ...coz.chain.zoom_chain import derive_step_seed
from ...coz.geometry import Target, ZoomStep, plan_steps
from ..backbones import make_backbone, make_backbone_input
from ..backbones.restraint import make_restraint_input, restrain
from ..host.color_profile import read_color_profile, write_profile_notice
from ..host.expansion import AS_LINKS, Expansion
from ..host.graph import list_used_models
from ..host.images import require_one_image
from ..host.messages import give_notices, show_on_node
from ..host.options import require_options, require_range, validate_options
from ..host.sockets import Chain
from ..step.color_fix import METHODS
from ..step.crop_center_zoom import make_center_inputs, make_frame_inputs, make_mask_input
from ..step.sr_step import make_seed_input
from ..text_sources import make_prompting_input, make_text_source
from .gate import is_below
from .start import Start, start_at_chain, start_at_image, write_unused_inputs_notice
from .steps import StepNodes, StepSettings

MIN_SCALE, MAX_SCALE = 1.5, 8
MAX_STOP_BELOW_DB = 100


def make_scale_input(tooltip: str) -> io.Input:
    return io.Float.Input(
        "scale",
        default=4.0,
        min=MIN_SCALE,
        max=float(MAX_SCALE),
        step=0.01,
        tooltip=tooltip,
    )


class CoZChainLoop(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZChainLoop",
            display_name="Zoom In with Super Resolution (Chain Loop)",
            category="Chain-of-Zoom",
            description="Zooms into a spot of an image in steps. Each step cuts a window around the target "
            "out of the frame before, enlarges it to the size of the frame and sharpens it with a "
            "super-resolution model. Four steps of 4x show the spot at 256x. Detail finer than the pixels "
            "of the image is invented. Connect an output to Preview Image or Save Image to run the node.",
            search_aliases=[
                "chain of zoom",
                "CoZ",
                "zoom in",
                "upscale",
                "super resolution",
                "extreme super resolution",
                "magnify",
                "enlarge",
                "enhance",
                "detail",
            ],
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The image to zoom into: one image, not a batch. Each image of a list gets "
                    "its own chain.",
                ),
                make_backbone_input(**AS_LINKS),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=MAX_STEPS,
                    tooltip="Number of zoom steps. If you raise this number later, only the new steps run.",
                ),
                make_scale_input("Factor of each step: 4 steps of 4x make 256x."),
                *make_center_inputs(),
                make_prompting_input(**AS_LINKS),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the image shows. All steps use this text. If a vision-language model or "
                    "a tagger writes the texts, it is added to each of them. Upscale models do not read "
                    "it; with them it is only saved in the chain.",
                ),
                io.String.Input(
                    "step_prompts",
                    default="",
                    multiline=True,
                    placeholder="one line per step; blank = prompt; - = no text",
                    tooltip="The complete text of each step, one line per step. If a line is blank, the "
                    'step uses prompt or the text that a model writes. A line that contains only "-" '
                    'means no text. The output "prompts" has the same form.',
                ),
                make_seed_input(
                    'The seed of each step is computed from this seed. It is used by the backbones "any '
                    'checkpoint" and "diffusion inversion (InvSR)", and by a vision-language model with '
                    "a temperature above 0."
                ),
                io.Combo.Input(
                    "color_fix",
                    options=METHODS,
                    default="wavelet",
                    tooltip="The method of Color Fix that gives each result the colors of the view that it "
                    "was made from. hybrid mixes wavelet and adain in equal parts.",
                ),
                *make_frame_inputs(advanced_size=True),
                make_mask_input(),
                Chain.Input(
                    "chain",
                    optional=True,
                    tooltip="A chain to continue, from CoZ Load Chain or another Chain Loop. Its frames, "
                    'scale and target are used. Connect its source image to the input "image".',
                ),
                io.Int.Input(
                    "from_step",
                    default=MAX_STEPS,
                    min=0,
                    max=MAX_STEPS,
                    optional=True,
                    advanced=True,
                    tooltip="Continue after this step of the connected chain. 0 keeps only the first frame, 16 "
                    "keeps all steps. Without a chain this input is not used.",
                ),
                io.Float.Input(
                    "consistency",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How strongly each result is corrected towards its input, the part of the frame "
                    "that was enlarged. 0: no correction; the agreement is only measured. 1: full "
                    "correction; the downscaled result then equals its input.",
                ),
                io.Float.Input(
                    "stop_below",
                    default=0.0,
                    min=0.0,
                    max=float(MAX_STOP_BELOW_DB),
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="Agreement in dB below which the chain ends. The agreement says how well the "
                    "downscaled result of a step equals its input, the part of the frame that was enlarged: "
                    "at 40 dB or more the result repeats the input; below 20 dB it contradicts the input. "
                    "The chain ends with the first step whose agreement is lower; this step is kept. 0: the chain "
                    "never ends early.",
                ),
                make_restraint_input(),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The deepest frame."),
                io.Image.Output(
                    "scales",
                    tooltip="All frames, from the first to the deepest, as one batch of images.",
                ),
                io.String.Output(
                    "prompts",
                    tooltip="The text of each step, one line per step; - means no text. Paste it into "
                    "step_prompts to use the same texts again.",
                ),
                Chain.Output(
                    "chain",
                    tooltip="The whole zoom: source image, frames, windows, texts and seeds. Connect it to "
                    "CoZ Save Chain, to another Chain Loop, or to the nodes that show or check a chain.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, backbone=None, prompting=None):
        # ComfyUI reports an error once for each of these parameters that the prompt holds. A prompt in API
        # format may lack backbone and prompting, so image, which is always connected, is a parameter too.
        return validate_options(cls, backbone=backbone, prompting=prompting)

    @classmethod
    def execute(
        cls,
        image,
        backbone,
        steps,
        scale,
        center_x,
        center_y,
        prompting,
        prompt,
        step_prompts,
        seed,
        color_fix,
        frame,
        size,
        mask=None,
        chain=None,
        from_step=MAX_STEPS,
        consistency=0.0,
        stop_below=0.0,
        restraint=None,
    ) -> io.NodeOutput:
        require_options(cls, backbone=backbone, prompting=prompting)
        single = require_one_image(image, "Chain Loop")
        require_range("steps", steps, 1, MAX_STEPS)
        require_range("scale", scale, MIN_SCALE, MAX_SCALE)
        require_range("from_step", from_step, 0, MAX_STEPS)
        require_range("consistency", consistency, 0, 1)
        require_range("stop_below", stop_below, 0, MAX_STOP_BELOW_DB, " dB")
        show_on_node("reading the image")
        expansion = Expansion(cls, reporters={"CoZChainCheck", "CoZChainCollect"})
        center = Target(center_x, center_y)
        if chain is None:
            profile = read_color_profile(cls.hidden.dynprompt, cls.hidden.unique_id)
            start = start_at_image(expansion, single, scale, center, mask, frame, size, profile)
        else:
            kept = min(from_step, chain.steps, steps)
            own_inputs = single, scale, center, mask, step_prompts, frame, size
            notices = write_unused_inputs_notice(chain, kept, *own_inputs)
            start = start_at_chain(expansion, chain, kept, notices)
        sharpener, text_source = make_backbone(backbone), make_text_source(prompting)
        color_fix, consistency, notice = restrain(restraint, sharpener, color_fix, consistency)
        notices = give_notices(
            *start.notices,
            write_profile_notice(start.color_profile),
            sharpener.write_untrained_scale_notice(start.scale),
            sharpener.write_extra_values_notice("steps", steps),
            notice,
        )
        texts = prompt, step_prompts
        settings = StepSettings(start.scale, *texts, seed, color_fix, consistency, stop_below)
        step_nodes = StepNodes(expansion.add_node, sharpener, text_source, settings, start.frames)
        plan = plan_missing_steps(start, steps, stop_below)
        collector_inputs = start.list_collector_inputs()
        for i, step in enumerate(plan, len(start.prompts) + 1):
            collector_inputs |= step_nodes.add(i, step)
        used = list_used_models(cls.hidden.dynprompt, cls.hidden.unique_id) if plan else []
        return add_collector(
            expansion, start, plan, steps, settings, used, notices, collector_inputs
        )


def plan_missing_steps(start: Start, steps: int, stop_below: float) -> list[ZoomStep]:
    """Plan the steps after the start: none if its last step already ends the chain."""
    if start.agreements and is_below(start.agreements[-1], stop_below):
        return []
    missing = steps - len(start.prompts)
    return plan_steps(start.height, start.width, start.scale, missing, start.frame_target)


def add_collector(
    expansion: Expansion,
    start: Start,
    plan: list[ZoomStep],
    steps: int,
    settings: StepSettings,
    models: list[str],
    notices: list[str],
    collector_inputs: dict,
) -> io.NodeOutput:
    """Add the node that collects the chain, and return its outputs as those of Chain Loop."""
    done = len(start.prompts)
    seeds = [derive_step_seed(settings.seed, i) for i in range(done + 1, steps + 1)]
    child = expansion.add_node(
        "CoZChainCollect",
        "collect",
        image=start.source,
        scale=start.scale,
        steps=steps,
        windows=json.dumps([*start.windows, *(step.window for step in plan)]),
        seeds=json.dumps([*start.seeds, *seeds]),
        target=json.dumps(start.target),
        models=json.dumps(list(dict.fromkeys([*start.models, *models]))),
        notices="\n".join(notices),
        kept=done,
        stop_below=settings.stop_below,
        color_profile=start.color_profile,
        **collector_inputs,
    )
    return expansion.finish(*(child.out(k) for k in range(4)))
