import json

import comfy.utils
import torch
from comfy_api.latest import io, ui

from ..coz.chain import ZoomChain
from ..coz.geometry import Target, Window
from ..coz.prompt import join_texts
from ..coz.record import MAX_STEPS
from ..coz.strip import factor_label
from .host import preview_of, show, to_bchw, to_image

Chain = io.Custom("COZ_CHAIN")


class CoZChainInput(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZChainInput",
            display_name="CoZ Chain Input",
            category="Chain-of-Zoom/step",
            description="Internal: the picture that one chain of a Chain Loop works on.",
            is_dev_only=True,
            is_input_list=True,
            inputs=[io.Image.Input("image"), io.Int.Input("index")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, index) -> io.NodeOutput:
        # The host repeats the last item of a list that is shorter than the others. Converted here,
        # so that all chains of a picture share one copy where it has to be one.
        return io.NodeOutput(to_image(to_bchw(image[min(index[0], len(image) - 1)])))


class CoZChainFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        names = ["source", *(f"frame_{i}" for i in range(MAX_STEPS + 1))]
        return io.Schema(
            node_id="CoZChainFrames",
            display_name="CoZ Chain Frames",
            category="Chain-of-Zoom/step",
            description="Internal: the pictures of the chain that a Chain Loop goes on with.",
            is_dev_only=True,
            is_input_list=True,
            inputs=[Chain.Input("chain"), io.Int.Input("index")],
            outputs=[io.Image.Output(name) for name in names],
        )

    @classmethod
    def execute(cls, chain, index) -> io.NodeOutput:
        frames = chain[min(index[0], len(chain) - 1)].frames
        missing = MAX_STEPS + 2 - len(frames)
        return io.NodeOutput(*map(to_image, frames), *[None] * missing)


class CoZChainCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        numbers = range(1, MAX_STEPS + 1)
        frames = [io.Image.Input(f"frame_{i}", optional=True, lazy=True) for i in (0, *numbers)]
        texts = [io.String.Input(f"text_{i}", optional=True, lazy=True) for i in numbers]
        return io.Schema(
            node_id="CoZChainCollect",
            display_name="CoZ Chain Collect",
            category="Chain-of-Zoom/step",
            description="Internal: gathers the frames of a chain, asking for one more at a time.",
            is_dev_only=True,
            is_output_node=True,  # else the previews' steps all run before its turn comes
            inputs=[
                io.Image.Input("image"),
                io.Float.Input("scale"),
                io.Int.Input("steps"),
                io.String.Input("windows"),
                io.String.Input("seeds"),
                io.String.Input("target"),
                io.String.Input("models"),
                io.String.Input("notes"),
                *frames,
                *texts,
            ],
            outputs=[
                io.Image.Output("image"),
                io.Image.Output("scales"),
                io.String.Output("prompts"),
                Chain.Output("chain"),
            ],
        )

    @classmethod
    def check_lazy_status(cls, steps, notes="", **parts):
        # One frame at a time, its text before it: only so can a chain end before its last step.
        for i in range(steps + 1):
            text = parts.get(f"text_{i}")
            if i and text is None:
                wanted, doing = f"text_{i}", "asking the vision-language model"
            elif parts.get(f"frame_{i}") is None:
                wanted, doing = f"frame_{i}", "super-resolving"
            else:
                continue
            comfy.utils.ProgressBar(steps + 1).update_absolute(i)
            if i:
                show("\n".join(filter(None, [f"step {i} of {steps}: {doing}", text, notes])))
            return [wanted]
        return []

    @classmethod
    def execute(
        cls, image, scale, steps, windows, seeds, target, models, notes, **parts
    ) -> io.NodeOutput:
        images = [parts[f"frame_{i}"] for i in range(steps + 1)]
        texts = [parts[f"text_{i + 1}"] for i in range(steps)]
        chain = ZoomChain(
            scale=scale,
            frames=tuple(to_bchw(frame) for frame in (image, *images)),
            windows=tuple(Window(*window) for window in json.loads(windows)),
            prompts=tuple(texts),
            seeds=tuple(json.loads(seeds)),
            target=Target(*json.loads(target)),
            models=tuple(json.loads(models)),
        )
        told = join_texts(texts) if any(texts) else ""
        depth = factor_label(chain, len(images))
        count = "1 step" if steps == 1 else f"{steps} steps"
        show("\n".join(filter(None, [f"{count}, {depth}", told, notes])))
        scales = torch.cat(images)
        shown = ui.PreviewImage(scales, cls=cls).as_dict() | {
            "coz_chain": [chain.to_json()],
            "coz_source": preview_of(chain.frames[0], chain.target),
        }
        return io.NodeOutput(images[-1], scales, join_texts(texts), chain, ui=shown)
