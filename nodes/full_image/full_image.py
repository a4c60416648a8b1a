import json

from comfy_api.latest import io

from ..backbones import backbone_input, make_backbone
from ..host.color_profile import describe_profile, read_color_profile
from ..host.expansion import AS_LINKS, Expansion, nest_inputs
from ..host.images import require_one_image
from ..host.messages import give_notices, show
from ..host.options import require_options, require_range, validate_options
from ..loop.chain_loop import MAX_SCALE, MIN_SCALE, scale_input
from ..step.color_fix import METHODS
from ..step.sr_step import seed_input
from ..text_sources import TYPED, make_text_source, prompting_input
from ..text_sources.text_source import TextSource
from .plan import (
    count_tiles,
    describe_unused_lines,
    describe_work,
    plan_passes,
    require_memory,
    split_lines,
)

MAX_PASSES = 4

MIN_TILE_PIXELS, MAX_TILE_PIXELS = 64, 4096
"""Limits of a tile's side."""


class CoZFullImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZFullImage",
            display_name="Full-Image SR (CoZ)",
            category="Chain-of-Zoom/step",
            description="Enlarges a whole picture in tiles, each sharpened with a text of its own where a "
            "vision-language model is connected, and joined without seams. A second pass enlarges the result again.",
            search_aliases=[
                "tile",
                "tiled upscale",
                "whole picture 4x",
                "full image",
                "upscale",
                "super resolution",
                "enhance",
                "detail",
            ],
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The picture to enlarge: one picture, not a batch."
                ),
                backbone_input(**AS_LINKS),
                scale_input("Factor of each pass."),
                io.Int.Input(
                    "passes",
                    default=1,
                    min=1,
                    max=MAX_PASSES,
                    tooltip="Each pass enlarges the last one's result: 2 passes of 4 make 16x.",
                ),
                *tile_inputs(),
                prompting_input(is_for_tiles=True, **AS_LINKS),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="What the picture shows: the text of every tile, or added to what a vision-language model writes. "
                    "Upscale models do not read it.",
                ),
                io.String.Input(
                    "tile_prompts",
                    default="",
                    multiline=True,
                    placeholder="one line a tile; blank = prompt; - = no text",
                    tooltip="Line 1 is the whole text of the first tile and so on, row by row, the passes after each other. A blank "
                    "line: the tile uses prompt, or asks the model. A single - : no text. The prompts output has this form.",
                ),
                seed_input(
                    "Any checkpoint: seed of the noise that all tiles of a pass share. Each tile draws a seed of its own "
                    "from it for the model's temperature and for samplers that add noise."
                ),
                io.Combo.Input(
                    "color_fix",
                    options=METHODS,
                    default="wavelet",
                    tooltip="Keeps each tile's colours those of the view it enlarges.",
                ),
                consistency_input(),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The enlarged picture."),
                io.String.Output("prompts", tooltip="The text of each tile, a line a tile."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, backbone=None, prompting=None):
        # ComfyUI calls this only if one of its parameters is a given input: ``image`` always is.
        return validate_options(cls, backbone=backbone, prompting=prompting)

    @classmethod
    def execute(
        cls,
        image,
        backbone,
        scale,
        passes,
        tile,
        overlap,
        adaptive_overlap,
        prompting,
        prompt,
        tile_prompts,
        seed,
        color_fix,
        consistency,
    ) -> io.NodeOutput:
        require_options(cls, backbone=backbone, prompting=prompting)
        picture = require_one_image(image, "Full-Image SR")
        require_range("scale", scale, MIN_SCALE, MAX_SCALE)
        require_range("passes", passes, 1, MAX_PASSES)
        require_range("consistency", consistency, 0, 1)
        require_range("tile", tile, MIN_TILE_PIXELS, MAX_TILE_PIXELS, " pixels")
        require_memory(*picture.shape[-2:], scale, passes)
        sharpener, source = make_backbone(backbone), make_text_source(prompting)
        layouts = plan_passes(picture, scale, passes, tile, overlap, adaptive_overlap)
        lines = split_lines(layouts, source, prompt, tile_prompts)
        profile = read_color_profile(cls.hidden.dynprompt, cls.hidden.unique_id)
        scale_line = sharpener.describe_scale(scale)
        notes = give_notices(
            describe_profile(profile),
            f"{scale_line} a pass" if scale_line else "",
            describe_unused_lines(tile_prompts, sum(map(len, lines))),
        )
        counts = count_tiles(picture, layouts, sharpener, color_fix)
        show("\n".join([describe_work(counts, lines), *notes]))
        expansion = Expansion(cls)
        settings = {
            **nest_inputs("backbone", backbone),
            "seed": seed if sharpener.reads_seed else 0,
            "color_fix": color_fix,
            "consistency": consistency,
        }
        link, index = expansion.links["image"], expansion.index
        original = expansion.add_node("CoZChainInput", "input", image=link, index=index).out(0)
        current, texts, reports = original, "", {}
        for i, (layout, own) in enumerate(zip(layouts, lines, strict=True), 1):
            of_pass = {"image": current, "original": original, "number": i}
            of_pass["layout"] = json.dumps(layout)
            text_inputs = prompting, source, prompt, seed
            prompts, texts = add_texts(expansion, of_pass, own, texts, *text_inputs)
            prompts = prompts if sharpener.reads_text else ""
            tiles = expansion.add_node(
                "CoZTiles", f"tiles_{i}", **of_pass, prompts=prompts, **settings
            )
            current, reports[f"said_{i}"] = tiles.out(0), tiles.out(1)
        notes = "\n".join(notes)
        collect = expansion.add_node(
            "CoZFullImageCollect", "collect", image=current, notes=notes, **reports
        )
        return expansion.finish(collect.out(0), texts)


def tile_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "tile",
            default=512,
            min=MIN_TILE_PIXELS,
            max=MAX_TILE_PIXELS,
            step=16,
            tooltip="Side of a tile in pixels of the result. Larger shows the model more at once and takes more memory.",
        ),
        io.Int.Input(
            "overlap",
            default=128,
            min=0,
            max=2048,
            step=8,
            tooltip="Pixels that neighbours share at least; they are blended there. Tiles of upscale models see their "
            "surroundings and need none, except with color_fix adain, histogram, hybrid or best.",
        ),
        io.Boolean.Input(
            "adaptive_overlap",
            default=False,
            tooltip="Overlap of a quarter of the tile where the picture is calm to a half where it is full of detail, in "
            "place of overlap.",
        ),
    ]


def consistency_input() -> io.Input:
    return io.Float.Input(
        "consistency",
        default=0.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip="How far each result is bent back to what it was made from, so that it gives that again when it is made "
        "small. 0: not at all. 1: fully.",
    )


def add_texts(
    expansion: Expansion,
    of_pass: dict,
    lines: list[str],
    before: str | list,
    prompting: dict,
    source: TextSource | None,
    prompt: str,
    seed: int,
) -> tuple[list, list]:
    """Add the nodes that write the texts of a pass.

    Args:
        before: Link to the texts of all passes before.

    Returns:
        The links to the texts of this pass, and to those of all passes up to it.
    """
    needs_source = "" in lines
    own = "\n".join(lines)
    extracted = expansion.add_node(
        "CoZTilePrompts",
        f"prompts_{of_pass['number']}",
        **of_pass,
        **nest_inputs("prompting", prompting if needs_source else {"prompting": TYPED}),
        tile_prompts=own,
        seed=seed if needs_source and source.reads_seed else 0,
    ).out(0)
    written = expansion.add_node(
        "CoZTileTexts",
        f"texts_{of_pass['number']}",
        extracted=extracted,
        tile_prompts=own,
        prompt=prompt if needs_source else "",
        before=before,
    )
    return written.out(0), written.out(1)
