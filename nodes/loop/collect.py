import json
from functools import cache
from math import isnan, nan

import comfy.utils
import torch
from comfy_api.latest import io, ui

from ...coz.chain.schema import MAX_STEPS
from ...coz.chain.zoom_chain import ZoomChain
from ...coz.fidelity.back_projection import format_decibels
from ...coz.fidelity.summary import describe_depth, describe_step
from ...coz.geometry import Target, Window
from ...coz.text.step_prompts import join_texts
from ..host.images import save_preview, to_bchw, to_image
from ..host.messages import (
    join_with_line_breaks,
    pick_css_color,
    show_expansion_closing_text,
    show_on_node,
    take_notices,
)
from ..host.sockets import Chain, PreviewFiles
from .gate import is_below, round_agreement

STEP_INPUTS = ("frame", "preview_files", "agreement", "invented", "notices", "denoise")
"""The inputs of the collector for each step, besides its text. Not every step has a denoise."""
INVENTED_SHARE_DECIMALS = 4


class CachedSchema(io.Schema):
    """A schema that is converted for ComfyUI's executor only once.

    ComfyUI converts a node's schema whenever it looks up an input, and the collector has a hundred.
    """

    _info = None

    def get_v1_info(self, cls):
        if self._info is None:
            self._info = super().get_v1_info(cls)
        return self._info


class CoZChainInput(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZChainInput",
            display_name="CoZ Chain Input",
            category="Chain-of-Zoom/step",
            description="Internal: the image that one run of Chain Loop or Full-Image SR starts from.",
            is_dev_only=True,
            is_input_list=True,
            inputs=[io.Image.Input("image"), io.Int.Input("index")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, index) -> io.NodeOutput:
        # min: as ComfyUI does, use the last item of a shorter list again. Convert the image here and not in
        # each node that reads it, so that all of them share one copy.
        return io.NodeOutput(to_image(to_bchw(image[min(index[0], len(image) - 1)])))


class CoZChainFrames(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        names = ["source", *(f"frame_{i}" for i in range(MAX_STEPS + 1))]
        return io.Schema(
            node_id="CoZChainFrames",
            display_name="CoZ Chain Frames",
            category="Chain-of-Zoom/step",
            description="Internal: the frames of the chain that a Chain Loop continues.",
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


@cache
def make_collector_schema() -> io.Schema:
    def make_step_inputs(kind, name: str, first: int = 1) -> list[io.Input]:
        steps = range(first, MAX_STEPS + 1)
        return [kind.Input(f"{name}_{i}", optional=True, lazy=True) for i in steps]

    return CachedSchema(
        node_id="CoZChainCollect",
        display_name="CoZ Chain Collect",
        category="Chain-of-Zoom/step",
        description="Internal: collects the frames of a chain and requests them one by one.",
        is_dev_only=True,
        # ComfyUI runs output nodes first. Otherwise it could pick other nodes that are ready, and run
        # every step before this node asks for the first.
        is_output_node=True,
        inputs=[
            io.Image.Input("image"),
            io.Float.Input("scale"),
            io.Int.Input("steps", min=1, max=MAX_STEPS),
            io.String.Input("windows"),
            io.String.Input("seeds"),
            io.String.Input("target"),
            io.String.Input("models"),
            io.String.Input("notices"),
            io.Int.Input("kept", min=0, max=MAX_STEPS),
            io.Float.Input("stop_below"),
            io.String.Input("color_profile", optional=True),
            *make_step_inputs(io.Image, "frame", 0),
            *make_step_inputs(io.String, "text"),
            *make_step_inputs(PreviewFiles, "preview_files"),
            *make_step_inputs(io.Float, "agreement"),
            *make_step_inputs(io.Float, "invented"),
            *make_step_inputs(io.String, "notices"),
            *make_step_inputs(io.Float, "denoise"),
        ],
        outputs=[
            io.Image.Output("image"),
            io.Image.Output("scales"),
            io.String.Output("prompts"),
            Chain.Output("chain"),
        ],
    )


class CoZChainCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return make_collector_schema()

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> float:
        # With NaN, cache providers do not store this node. Its key would hold the whole chain, and hashing
        # that at every request takes longer than gathering the frames again.
        return nan

    @classmethod
    def find_last_step(cls, steps, kept, stop_below, inputs) -> int:
        """Return the step that the chain ends with, as far as the agreements so far show it."""
        for i in range(max(kept, 1), steps):
            agreement = inputs.get(f"agreement_{i}")
            if agreement is not None and is_below(agreement, stop_below):
                return i
        return steps

    @classmethod
    def get_step_figures(cls, i, inputs) -> tuple[float, float]:
        """Return for step i its agreement with its input, in dB, and the invented share of its result."""
        agreement = inputs.get(f"agreement_{i}")
        invented = inputs.get(f"invented_{i}")
        return (
            nan if agreement is None else round_agreement(agreement),
            nan if invented is None else round(invented, INVENTED_SHARE_DECIMALS),
        )

    @classmethod
    def check_lazy_status(cls, steps, kept, stop_below, notices="", **inputs):
        # Request one step at a time, and its text before it, so that the chain can end early.
        for i in range(cls.find_last_step(steps, kept, stop_below, inputs) + 1):
            text = inputs.get(f"text_{i}")
            if i and text is None:
                wanted, doing = [f"text_{i}"], "writing the prompt"
            elif inputs.get(f"frame_{i}") is None:
                names = STEP_INPUTS if i > kept else STEP_INPUTS[:1]
                wanted = [f"{name}_{i}" for name in names if f"{name}_{i}" in inputs]
                doing = "super-resolving"
            else:
                continue
            comfy.utils.ProgressBar(steps + 1).update_absolute(i)
            if i:
                before = ""
                if i > 1:
                    images = [inputs["image"], *(inputs[f"frame_{k}"] for k in range(i))]
                    # Only the sizes are read: to_bchw would check every pixel again.
                    chain = cls.gather_chain([image.movedim(-1, 1) for image in images], **inputs)
                    before = describe_step(chain, i - 1)
                lines = [f"step {i} of {steps}: {doing}", text, before, notices]
                show_on_node("\n".join(filter(None, lines)))
            return wanted
        return []

    @classmethod
    def gather_chain(
        cls, frames, scale, windows, seeds, target, models, color_profile="", **inputs
    ) -> ZoomChain:
        """Make the record of a chain from its frames, the source first."""
        last = len(frames) - 2
        measured = [cls.get_step_figures(i + 1, inputs) for i in range(last)]
        agreements, invented = zip(*measured, strict=True) if measured else ((), ())
        if all(map(isnan, agreements)):
            agreements = invented = ()
        denoises = [inputs.get(f"denoise_{i + 1}") for i in range(last)]
        has_denoise = any(each is not None for each in denoises)
        return ZoomChain(
            scale=scale,
            frames=tuple(frames),
            windows=tuple(Window(*window) for window in json.loads(windows)[: last + 1]),
            prompts=tuple(inputs[f"text_{i + 1}"] for i in range(last)),
            seeds=tuple(json.loads(seeds)[:last]),
            target=Target(*json.loads(target)),
            models=tuple(json.loads(models)),
            agreements=agreements,
            invented=invented,
            denoises=tuple(nan if each is None else each for each in denoises if has_denoise),
            color_profile=color_profile,
        )

    @classmethod
    def execute(
        cls,
        image,
        scale,
        steps,
        windows,
        seeds,
        target,
        models,
        notices,
        kept,
        stop_below,
        color_profile="",
        **inputs,
    ) -> io.NodeOutput:
        last = cls.find_last_step(steps, kept, stop_below, inputs)
        images = [inputs[f"frame_{i}"] for i in range(last + 1)]
        frames, batch = join_frames([image, *images])
        chain = cls.gather_chain(
            frames, scale, windows, seeds, target, models, color_profile, **inputs
        )
        prompts = join_texts(chain.prompts) if any(chain.prompts) else ""
        stopped = ""
        if last < steps:
            stopped = (
                f"stopped after step {last} of {steps}: its agreement with its input is "
                f"{format_decibels(chain.agreements[-1])}, below stop_below ({stop_below:g} dB)"
            )
        step_lines = [describe_step(chain, step) for step in range(1, last + 1)]
        earlier = join_with_line_breaks(
            notices, *(inputs.get(f"notices_{i + 1}") for i in range(last))
        )
        notices = dict.fromkeys([*earlier.split("\n"), *take_notices()])
        depth = describe_depth(chain)
        text = join_with_line_breaks(depth, stopped, *step_lines, prompts, *notices)
        dots = {line: pick_css_color(chain, layer) for layer, line in enumerate(step_lines, 2)}
        dots[depth] = pick_css_color(chain, last + 1)
        ui_output = {
            "images": [
                file
                for i, frame in enumerate(images)
                for file in cls.list_preview_files(i, frame, inputs)
            ],
            "animated": (False,),
            "coz_chain": [chain.to_json()],
            "coz_source": save_preview(chain.frames[0], chain.target),
            **show_expansion_closing_text(text, dots),
        }
        return io.NodeOutput(batch[-1:], batch, join_texts(chain.prompts), chain, ui=ui_output)

    @classmethod
    def list_preview_files(cls, i, frame, inputs) -> list:
        """Return the preview that its step has saved, or save a new one."""
        return inputs.get(f"preview_files_{i}") or ui.PreviewImage(frame, cls=cls).values


def join_frames(images: list) -> tuple[list, torch.Tensor]:
    """Return the source and all frames (1, 3, H, W), and the frames as one batch (an IMAGE).

    The frames share the memory of the batch, so that the images of the steps can be freed. No pixel
    values are read here: each step has already checked its image.
    """
    source, *frames = images
    batch = torch.cat(frames)
    return [source.movedim(-1, 1), *batch.movedim(-1, 1).unsqueeze(1)], batch
