import json
from itertools import islice

import comfy.model_management
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ..coz.complexity import complexity_map
from ..coz.geometry import TileLayout
from ..coz.prompt import join_texts, step_lines, step_texts, trim
from ..coz.tile import enlarged, plan_tiles
from .backbone import ANY_CHECKPOINT, AS_LINKS, ONE_STEP, UPSCALE_MODEL, backbone_input
from .cache import CACHE, CHILD_PREFIX
from .color import METHODS
from .diffusion import seed_input
from .host import (
    SEARCH_ALIASES,
    closing_of_expansion,
    join_lines,
    notice,
    require_options,
    show,
    take_notices,
    to_bchw,
    validate_options,
)
from .loop import LEAST_SCALE, MOST_SCALE
from .profile import color_profile, profile_note
from .prompting import ORIGINAL, TEXT, nested, prompting_input
from .tile_prompts import counted
from .tiles import network_tiles

TILE_TOKENS = 16
"""Chain-of-Zoom inference_coz_full.py: words of a tile, fewer than of a zoom."""

MOST_PASSES = 4

LEAST_TILE, MOST_TILE = 64, 4096
"""Pixels of its side."""


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
                *SEARCH_ALIASES,
                "tile",
                "tiled upscale",
                "whole picture",
                "full image",
            ],
            enable_expand=True,
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The picture to enlarge: one picture, not a batch."
                ),
                backbone_input(**AS_LINKS),
                io.Float.Input(
                    "scale",
                    default=4.0,
                    min=LEAST_SCALE,
                    max=MOST_SCALE,
                    step=0.01,
                    tooltip="Factor of each pass.",
                ),
                io.Int.Input(
                    "passes",
                    default=1,
                    min=1,
                    max=MOST_PASSES,
                    tooltip="Each pass enlarges the last one's result: 2 passes of 4 make 16x.",
                ),
                *tile_inputs(),
                prompting_input(ORIGINAL, TILE_TOKENS, **AS_LINKS),
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
        # ``image`` is named because the host calls this only where a named input is given.
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
        picture = to_bchw(image)
        if image.shape[0] != 1:
            raise ValueError(
                f"image is a batch of {image.shape[0]} pictures. Put Rebatch Images (batch_size 1) before "
                "Full-Image SR: it then runs once for each"
            )
        # The schema's limits do not hold for linked values.
        if not LEAST_SCALE <= scale <= MOST_SCALE:
            raise ValueError(f"scale must be {LEAST_SCALE:g} to {MOST_SCALE:g}, got {scale:g}")
        if not 1 <= passes <= MOST_PASSES:
            raise ValueError(f"passes must be 1 to {MOST_PASSES}, got {passes}")
        if not 0 <= consistency <= 1:
            raise ValueError(f"consistency must be 0 to 1, got {consistency:g}")
        if not LEAST_TILE <= tile <= MOST_TILE:
            raise ValueError(f"tile must be {LEAST_TILE} to {MOST_TILE} pixels, got {tile}")
        require_memory(*picture.shape[-2:], scale, passes)
        layouts = plan_passes(picture, scale, passes, tile, overlap, adaptive_overlap)
        lines = lines_of(layouts, prompting, prompt, tile_prompts)
        of_scale = ""
        if backbone["backbone"] == ONE_STEP and scale != 4:
            of_scale = (
                f"scale is {scale:g}: the Chain-of-Zoom LoRA and its like are trained for 4x a pass"
            )
        profile = color_profile(cls.hidden.dynprompt, cls.hidden.unique_id)
        of_profile = profile_note(profile) if profile else ""
        of_lines = unused(tile_prompts, sum(map(len, lines)))
        notes = [*filter(None, [of_profile, of_scale, of_lines])]
        for note in notes:
            notice(note)
        notes = list(dict.fromkeys([*take_notices(), *notes]))
        counts, size = [], picture.shape[-2:]
        for layout in layouts:
            counts.append(len(network_tiles(*size, layout, backbone["backbone"], color_fix)))
            size = layout.height, layout.width
        show("\n".join([coming(counts, lines), *notes]))
        CACHE.join()
        graph = GraphBuilder()
        link = cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]["image"]
        index = get_executing_context().list_index or 0

        def node(class_type: str, name: str, **inputs):
            return graph.node(class_type, id=CHILD_PREFIX + name, **inputs)

        source = node("CoZChainInput", "input", image=link, index=index).out(0)
        current, texts, said = source, "", {}
        # Of what a child does not read it gets nothing, nor the number of passes: else an edit of it
        # would run the child anew.
        for i, (layout, own) in enumerate(zip(layouts, lines, strict=True), 1):
            asks = "" in own
            extracted = node(
                "CoZTilePrompts",
                f"prompts_{i}",
                image=current,
                original=source,
                number=i,
                layout=json.dumps(layout),
                **nested("prompting", prompting if asks else {"prompting": TEXT}),
                tile_prompts="\n".join(own),
                seed=seed if asks and prompting["temperature"] > 0 else 0,
            ).out(0)
            written = node(
                "CoZTileTexts",
                f"texts_{i}",
                extracted=extracted,
                tile_prompts="\n".join(own),
                prompt=prompt if asks else "",
                before=texts,
            )
            tiles = node(
                "CoZTiles",
                f"tiles_{i}",
                image=current,
                prompts="" if backbone["backbone"] == UPSCALE_MODEL else written.out(0),
                number=i,
                layout=json.dumps(layout),
                **nested("backbone", backbone),
                seed=seed if backbone["backbone"] == ANY_CHECKPOINT else 0,
                color_fix=color_fix,
                consistency=consistency,
                original=source,
            )
            current, texts, said[f"said_{i}"] = tiles.out(0), written.out(1), tiles.out(1)
        collect = node(
            "CoZFullImageCollect", "collect", image=current, notes="\n".join(notes), **said
        )
        return io.NodeOutput(collect.out(0), texts, expand=graph.finalize())


class CoZFullImageCollect(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        numbers = range(1, MOST_PASSES + 1)
        return io.Schema(
            node_id="CoZFullImageCollect",
            display_name="CoZ Full Image Collect",
            category="Chain-of-Zoom/step",
            description="Internal: keeps on Full-Image SR what its passes have said.",
            is_dev_only=True,
            inputs=[
                io.Image.Input("image"),
                io.String.Input("notes"),
                *(io.String.Input(f"said_{i}", optional=True) for i in numbers),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, notes, said_1="", said_2="", said_3="", said_4="") -> io.NodeOutput:
        said = join_lines(said_1, said_2, said_3, said_4, notes)
        lines = dict.fromkeys(said.split("\n"))  # each pass may say the same
        return io.NodeOutput(image, ui=closing_of_expansion("\n".join(lines)))


def tile_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "tile",
            default=512,
            min=LEAST_TILE,
            max=MOST_TILE,
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


def plan_passes(
    picture: Tensor, scale: float, passes: int, tile: int, overlap: int, adaptive: bool
) -> list[TileLayout]:
    """The tiles of every pass, before the first is made."""
    height, width = picture.shape[-2:]
    complexity = complexity_map(picture) if adaptive else None
    layouts = []
    for _ in range(passes):
        layouts.append(plan_tiles(height, width, scale, tile, overlap, complexity))
        height, width = layouts[-1].height, layouts[-1].width
    return layouts


def lines_of(
    layouts: list[TileLayout], prompting: dict, prompt: str, tile_prompts: str
) -> list[list[str]]:
    """The text of each tile of each pass, "-" where it is empty and "" where a model is asked."""
    counts = [len(layout.windows()) for layout in layouts]
    if prompting["prompting"] == TEXT:
        tile_prompts = join_texts(step_texts(prompt, tile_prompts, sum(counts)))
    lines = iter(step_lines(tile_prompts, sum(counts)))
    return [list(islice(lines, count)) for count in counts]


def unused(tile_prompts: str, count: int) -> str:
    """What to tell of more lines than tiles, else nothing."""
    lines = tile_prompts.split("\n")
    given = max((i for i, line in enumerate(lines, 1) if trim(line)), default=1)
    if given <= count:
        return ""
    return f"tile_prompts has {given} lines for {counted(count, 'tile')}: the last are not used"


def coming(counts: list[int], lines: list[list[str]]) -> str:
    """What a run will take: "15 + 247 tiles, 15 + 247 prompts"."""
    asked = [own.count("") for own in lines]
    tiles = added_up(counts, "tile")
    return f"{tiles}, {added_up(asked, 'prompt')}" if any(asked) else tiles


def added_up(counts: list[int], noun: str) -> str:
    """Of one pass "1 tile", of more "1 + 4 tiles"."""
    if len(counts) == 1:
        return counted(counts[0], noun)
    return f"{' + '.join(map(str, counts))} {noun}s"


def require_memory(height: int, width: int, scale: float, passes: int) -> None:
    """Refuse a picture that cannot be held, before an hour goes into it."""
    needed = 0
    for _ in range(passes):
        height, width = enlarged(height, scale), enlarged(width, scale)
        needed += height * width * 3 * 4
    free = comfy.model_management.get_free_memory(comfy.model_management.intermediate_device())
    if needed > free:
        raise ValueError(
            f"the result would have {width} x {height} pixels, {needed / 1e9:.1f} GB with what leads to it, and "
            f"{free / 1e9:.1f} GB of memory are free. Lower scale or passes, or crop the picture first"
        )
