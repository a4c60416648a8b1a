import json

from comfy.cli_args import args
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.utils import get_executing_context

from ..coz.chain import step_seed
from ..coz.geometry import Target, plan_steps
from ..coz.record import MAX_STEPS
from .backbone import AS_LINKS, ONE_STEP, Backbone, backbone_input
from .cache import CACHE, CHILD_PREFIX
from .collect import Chain
from .color import METHODS, WAVELET_LEVELS
from .diffusion import seed_input
from .files import used_models
from .gate import is_below
from .host import (
    SEARCH_ALIASES,
    is_blank,
    notice,
    require_options,
    show,
    take_notices,
    target_of,
    to_bchw,
    validate_options,
)
from .profile import color_profile, profile_note
from .prompting import Prompting, prompting_input
from .start import ignored, start_at_chain, start_at_picture
from .zoom import center_inputs, frame_inputs, mask_input

LEAST_SCALE, MOST_SCALE = 1.5, 8.0
MOST_STOP_BELOW = 100.0


class CoZChainLoop(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZChainLoop",
            display_name="Chain Loop",
            category="Chain-of-Zoom",
            description="Zooms into a spot of a picture in steps, each enlarged and sharpened from the one before: "
            "four steps of 4x show it at 256x. Detail beyond the picture's own pixels is invented. Connect an output to "
            "Preview Image or Save Image to run it.",
            search_aliases=[*SEARCH_ALIASES, "chain of zoom", "CoZ", "extreme super resolution"],
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The picture to zoom into: one picture, not a batch."
                ),
                backbone_input(**AS_LINKS),
                io.Int.Input(
                    "steps",
                    default=4,
                    min=1,
                    max=MAX_STEPS,
                    tooltip="Number of zooms. Raising it later runs only the new steps.",
                ),
                io.Float.Input(
                    "scale",
                    default=4.0,
                    min=LEAST_SCALE,
                    max=MOST_SCALE,
                    step=0.01,
                    tooltip="Factor of each step: 4 steps of 4 make 256x.",
                ),
                *center_inputs(),
                prompting_input(**AS_LINKS),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the picture shows: the text of every step, or added to what a vision-language model writes. Upscale "
                    "models do not read it.",
                ),
                io.String.Input(
                    "step_prompts",
                    default="",
                    multiline=True,
                    placeholder="one line a step; blank = prompt; - = no text",
                    tooltip="Line 1 is the whole text of step 1 and so on. A blank line: the step uses prompt, or asks the model. A single - : "
                    "no text. The prompts output has this form.",
                ),
                seed_input(
                    "Each step draws its own seed from this one. Used by any checkpoint, and by the model's temperature."
                ),
                io.Combo.Input(
                    "color_fix",
                    options=METHODS,
                    default="wavelet",
                    tooltip="How each step keeps the colours of the view it enlarges: the methods of Color Fix, hybrid in equal parts.",
                ),
                *frame_inputs(advanced_size=True),
                mask_input(),
                Chain.Input(
                    "chain",
                    optional=True,
                    tooltip="Optional. A chain to go on with, from CoZ Load Chain or another loop. Its frames, scale and target hold; "
                    "image takes its picture.",
                ),
                io.Int.Input(
                    "from_step",
                    default=MAX_STEPS,
                    min=0,
                    max=MAX_STEPS,
                    optional=True,
                    advanced=True,
                    tooltip="With a chain: the last of its steps that is kept; the later ones are made anew. 16 keeps all.",
                ),
                io.Float.Input(
                    "consistency",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    advanced=True,
                    tooltip="How far each step is corrected to agree with the view it enlarges. 0: only measured. 1: made small "
                    "again, it is that view.",
                ),
                io.Float.Input(
                    "stop_below",
                    default=0.0,
                    min=0.0,
                    max=MOST_STOP_BELOW,
                    step=0.5,
                    optional=True,
                    advanced=True,
                    tooltip="Ends the chain after a step that agrees with the view it enlarges to less than this, in dB: from 40 "
                    "on a step repeats that view, below 20 it contradicts it. 0: never.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The deepest frame."),
                io.Image.Output("scales", tooltip="All frames, from the first to the deepest."),
                io.String.Output("prompts", tooltip="The text of each step, a line a step."),
                Chain.Output("chain", tooltip="The record: frames, windows, prompts and seeds."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, backbone=None, prompting=None):
        # ``image`` is named because the host calls this only where a named input is given.
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
    ) -> io.NodeOutput:
        require_options(cls, backbone=backbone, prompting=prompting)
        picture = to_bchw(image)
        if image.shape[0] != 1:
            raise ValueError(
                f"image is a batch of {image.shape[0]} pictures, and a chain zooms into one. Put "
                "Rebatch Images (batch_size 1) before Chain Loop: it then runs once for each"
            )
        if not 1 <= steps <= MAX_STEPS:  # the schema's limits do not hold for a linked value
            raise ValueError(f"steps must be 1 to {MAX_STEPS}, got {steps}")
        if not LEAST_SCALE <= scale <= MOST_SCALE:
            raise ValueError(f"scale must be {LEAST_SCALE:g} to {MOST_SCALE:g}, got {scale:g}")
        if not 0 <= from_step <= MAX_STEPS:
            raise ValueError(f"from_step must be 0 to {MAX_STEPS}, got {from_step}")
        if not 0 <= consistency <= 1:
            raise ValueError(f"consistency must be 0 to 1, got {consistency:g}")
        if not 0 <= stop_below <= MOST_STOP_BELOW:
            raise ValueError(
                f"stop_below must be 0 (off) to {MOST_STOP_BELOW:g} dB, got {stop_below:g}"
            )
        show("reading the picture")
        notes = []
        CACHE.join()

        # Children get links and constants, never tensors or the number of steps: only then does
        # the host recognise a step that it has already run.
        graph = GraphBuilder()
        links = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        index = get_executing_context().list_index or 0

        def node(class_type: str, name: str, **inputs):
            child = graph.node(class_type, id=CHILD_PREFIX + name, **inputs)
            # Else each child's own short progress would show on the loop instead of the chain's.
            if class_type not in {"CoZChainCheck", "CoZChainCollect"}:
                child.set_override_display_id(f"{cls.hidden.unique_id}.steps")
            return child

        if chain is None:
            target = target_of(center_x, center_y, mask, notes.append)
            profile = color_profile(cls.hidden.dynprompt, cls.hidden.unique_id)
            start = start_at_picture(
                node, links["image"], index, picture.shape[-2:], scale, target, frame, size, profile
            )
        else:
            kept = min(from_step, chain.steps, steps)
            uses_mask = mask is not None and not is_blank(mask)
            center = None if uses_mask else Target(center_x, center_y)
            notes += ignored(chain, kept, picture, scale, center, step_prompts, frame, size)
            start = start_at_chain(node, links["chain"], index, chain, kept)
        if start.color_profile:
            notes.append(profile_note(start.color_profile))
        if backbone["backbone"] == ONE_STEP and start.scale != 4:
            notes.append(
                f"scale is {start.scale:g}: the Chain-of-Zoom LoRA and its like are trained for 4x"
            )
        for note in notes:
            notice(note)
        notes = list(dict.fromkeys([*take_notices(), *notes]))
        done = len(start.prompts)
        plan = plan_steps(start.height, start.width, start.scale, steps - done, start.aim)
        if start.agreements and is_below(start.agreements[-1], stop_below):
            plan = []
        frames = list(start.frames)
        parts = start.figures() | {f"frame_{i}": link for i, link in enumerate(frames)}
        parts |= {f"text_{i}": text for i, text in enumerate(start.prompts, 1)}
        current = frames[-1]
        writer = Prompting(prompting, node, prompt, step_prompts, seed)
        sharpener = Backbone(backbone, node, seed)
        for i, step in enumerate(plan, done + 1):
            zoom = node(
                "CoZCropCenterZoom",
                f"zoom_{i}",
                image=current,
                scale=start.scale,
                center_x=step.aim.x,
                center_y=step.aim.y,
                resampling="bicubic",
            )
            text = writer.text(i, zoom.out(0), frames)
            current = sharpener.step(i, current, zoom, text)
            if color_fix != "none":
                current = node(
                    "CoZColorFix",
                    f"fix_{i}",
                    image=current,
                    reference=zoom.out(0),
                    method=color_fix,
                    levels=WAVELET_LEVELS,
                ).out(0)
            check = node(
                "CoZChainCheck",
                f"check_{i}",
                image=current,
                crop=zoom.out(1),
                zoomed=zoom.out(0),
                strength=consistency,
            )
            if consistency > 0:
                current = check.out(0)
            parts |= {
                f"frame_{i}": current,
                f"text_{i}": text,
                f"shown_{i}": check.out(1),
                f"agreement_{i}": check.out(2),
                f"invented_{i}": check.out(3),
                f"notices_{i}": check.out(4),
            }
            frames.append(current)
            if args.cache_none:
                current = node(
                    "CoZChainGate",
                    f"gate_{i}",
                    image=current,
                    agreement=check.out(2),
                    stop_below=stop_below,
                ).out(0)
        models = start.models
        if plan:
            models = [*models, *used_models(cls.hidden.dynprompt, cls.hidden.unique_id)]
        collect = node(
            "CoZChainCollect",
            "collect",
            image=start.source,
            scale=start.scale,
            steps=steps,
            windows=json.dumps([*start.windows, *(step.window for step in plan)]),
            seeds=json.dumps([*start.seeds, *(step_seed(seed, i + 1) for i in range(done, steps))]),
            target=json.dumps(start.target),
            models=json.dumps(list(dict.fromkeys(models))),
            notes="\n".join(notes),
            kept=done,
            stop_below=stop_below,
            color_profile=start.color_profile,
            **parts,
        )
        return io.NodeOutput(*(collect.out(k) for k in range(4)), expand=graph.finalize())
