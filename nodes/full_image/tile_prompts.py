import json
import time

import comfy.model_management
import comfy.utils
from comfy_api.latest import io

from ...coz.chain.zoom_chain import derive_step_seed
from ...coz.text.step_prompts import (
    choose_step_texts,
    clean_prompt,
    join_prompt,
    join_texts,
    split_step_lines,
)
from ...coz.tiles.layout import TileLayout, TileRow
from ..host.images import to_bchw
from ..host.messages import describe_time_left, show_on_node
from ..text_sources import make_prompting_input, make_text_source


def describe_count(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


def describe_pass(number: int, count: int, easy_count: int = 0) -> str:
    tiles = describe_count(count, "tile")
    if easy_count:
        tiles = f"{count - easy_count} of {count} tiles by the model"
    return f"pass {number}: {tiles}"


def read_layout(text: str) -> TileLayout:
    """Read a layout from JSON, the form in which Full-Image SR passes it to its children."""
    *sides, rows = json.loads(text)
    return TileLayout(*sides, tuple(TileRow(y, tuple(xs)) for y, xs in rows))


class CoZTilePrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZTilePrompts",
            display_name="CoZ Tile Prompts",
            category="Chain-of-Zoom/step",
            description="Internal: the texts that a model writes for the tiles of a pass of Full-Image "
            "SR.",
            is_dev_only=True,
            inputs=[
                io.Image.Input("image"),
                io.Image.Input("source"),
                io.Int.Input("number"),
                io.String.Input("layout"),
                make_prompting_input(),
                io.String.Input("tile_prompts"),
                io.Int.Input("seed"),
            ],
            outputs=[io.String.Output("prompts")],
        )

    @classmethod
    def execute(
        cls,
        image,
        source,
        number,
        layout,
        prompting,
        tile_prompts,
        seed,
    ) -> io.NodeOutput:
        image = to_bchw(image)
        layout = read_layout(layout)
        texts = split_step_lines(tile_prompts, len(layout.list_windows()))
        missing = [i for i, text in enumerate(texts) if not text]
        if missing:
            title = describe_pass(number, len(texts))
            show_on_node(f"{title}, {describe_count(len(missing), 'prompt')}")
            text_source = make_text_source(prompting)
            text_source.start_pass(image, source, layout, derive_step_seed(seed, number))
            bar = comfy.utils.ProgressBar(len(missing))
            started = time.monotonic()
            for done, i in enumerate(missing, 1):
                comfy.model_management.throw_exception_if_processing_interrupted()
                texts[i] = text_source.run(i)
                left = describe_time_left(started, done, len(missing))
                show_on_node(f"{title}; prompt {done} of {len(missing)}{left}\n{texts[i]}")
                bar.update_absolute(done)
        return io.NodeOutput(join_texts(texts))


class CoZTileTexts(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZTileTexts",
            display_name="CoZ Tile Texts",
            category="Chain-of-Zoom/step",
            description="Internal: adds prompt to the texts that a model wrote for the tiles of a pass. "
            "This is a separate node so that the model does not run again if only prompt changes.",
            is_dev_only=True,
            inputs=[
                io.String.Input("extracted"),
                io.String.Input("tile_prompts"),
                io.String.Input("prompt"),
                io.String.Input("before"),
            ],
            outputs=[
                io.String.Output("prompts"),
                io.String.Output("all_prompts"),
            ],
        )

    @classmethod
    def execute(cls, extracted, tile_prompts, prompt, before) -> io.NodeOutput:
        count = extracted.count("\n") + 1
        prompt = clean_prompt(prompt)
        texts = [
            text if typed else join_prompt(text, prompt)
            for text, typed in zip(
                choose_step_texts("", extracted, count),
                split_step_lines(tile_prompts, count),
                strict=True,
            )
        ]
        prompts = join_texts(texts)
        return io.NodeOutput(prompts, "\n".join(filter(None, [before, prompts])))
