import json
from pathlib import Path

import folder_paths
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder, is_link
from comfy_execution.utils import get_executing_context

from ..coz.chain import step_seed
from ..coz.geometry import Target, plan_steps
from ..coz.record import MAX_STEPS
from .backbone import ONE_STEP, Backbone, backbone_input
from .cache import CHILD_PREFIX
from .collect import Chain
from .color import METHODS, WAVELET_LEVELS
from .host import SEARCH_ALIASES, notice, show, target_of, to_bchw
from .prompting import Prompting, prompting_input
from .start import ignored, start_at_chain, start_at_picture
from .zoom import center_inputs, frame_inputs, mask_input

LEAST_SCALE, MOST_SCALE = 1.5, 8.0


def used_models(dynprompt, node_id: str) -> list[str]:
    """File names of the models that a loop's links lead to; those of its chain are in its record."""
    names, seen, waiting = [], set(), [node_id]
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        for key, value in dynprompt.get_node(current)["inputs"].items():
            if (current, key) == (node_id, "chain"):
                continue
            if is_link(value):
                waiting.append(value[0])
            elif (
                isinstance(value, str)
                and Path(value).suffix in folder_paths.supported_pt_extensions
            ):
                names.append(value)
    return list(dict.fromkeys(names))


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
                backbone_input(),
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
                prompting_input(),
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
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Each step draws its own seed from this one. Used by any checkpoint, and by the model's temperature.",
                ),
                io.Combo.Input(
                    "color_fix",
                    options=METHODS,
                    default="wavelet",
                    tooltip="Keeps each step's colours those of the view it enlarges.",
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
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The deepest frame."),
                io.Image.Output("scales", tooltip="All frames, from the first to the deepest."),
                io.String.Output("prompts", tooltip="The text of each step, a line a step."),
                Chain.Output("chain", tooltip="The record: frames, windows, prompts and seeds."),
            ],
        )

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
    ) -> io.NodeOutput:
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
        show("reading the picture")
        notes = []

        # Children get links and constants, never tensors or the number of steps: only then does
        # the host recognise a step that it has already run.
        graph = GraphBuilder()
        links = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]
        index = get_executing_context().list_index or 0

        def node(class_type: str, name: str, **inputs):
            child = graph.node(class_type, id=CHILD_PREFIX + name, **inputs)
            # Else each child's own short progress would show on the loop instead of the chain's.
            if class_type not in {"PreviewImage", "CoZChainCollect"}:
                child.set_override_display_id(f"{cls.hidden.unique_id}.steps")
            return child

        if chain is None:
            target = target_of(center_x, center_y, mask)
            start = start_at_picture(
                node, links["image"], index, picture.shape[-2:], scale, target, frame, size
            )
        else:
            kept = min(from_step, chain.steps, steps)
            center = None if mask is not None else Target(center_x, center_y)
            notes += ignored(chain, kept, picture, scale, center, step_prompts, frame, size)
            start = start_at_chain(node, links["chain"], index, chain, kept)
        if backbone["backbone"] == ONE_STEP and start.scale != 4:
            notes.append(
                f"scale is {start.scale:g}: the Chain-of-Zoom LoRA and its like are trained for 4x"
            )
        for note in notes:
            notice(note)
        done = len(start.prompts)
        plan = plan_steps(start.height, start.width, start.scale, steps - done, start.aim)
        frames = {f"frame_{i}": link for i, link in enumerate(start.frames)}
        texts = {f"text_{i}": text for i, text in enumerate(start.prompts, 1)}
        current = start.frames[-1]
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
            text = writer.text(i, zoom.out(0), list(frames.values()))
            current = sharpener.step(i, zoom, text)
            if color_fix != "none":
                current = node(
                    "CoZColorFix",
                    f"fix_{i}",
                    image=current,
                    reference=zoom.out(0),
                    method=color_fix,
                    levels=WAVELET_LEVELS,
                ).out(0)
            node("PreviewImage", f"preview_{i}", images=current)
            frames[f"frame_{i}"] = current
            texts[f"text_{i}"] = text
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
            **frames,
            **texts,
        )
        return io.NodeOutput(*(collect.out(k) for k in range(4)), expand=graph.finalize())
