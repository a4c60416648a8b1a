"""Plan a run of Full-Image SR: its tiles, their texts, and the memory that it takes."""

from itertools import islice

import comfy.model_management
from torch import Tensor

from ...coz.text.step_prompts import (
    EMPTY_PROMPT_MARK,
    choose_step_texts,
    join_texts,
    split_step_lines,
    trim,
)
from ...coz.tiles.complexity import rate_complexity
from ...coz.tiles.layout import TileLayout
from ...coz.tiles.plan import enlarge_side, plan_tiles
from ..backbones.backbone import Backbone
from ..text_sources.text_source import TextSource
from .tile_prompts import describe_count
from .tiles import list_result_tiles


def plan_passes(
    image: Tensor, scale: float, passes: int, tile: int, overlap: int, adaptive: bool
) -> list[TileLayout]:
    """Lay out the tiles of every pass."""
    height, width = image.shape[-2:]
    complexity = rate_complexity(image) if adaptive else None
    layouts = []
    for _ in range(passes):
        layouts.append(plan_tiles(height, width, scale, tile, overlap, complexity))
        height, width = layouts[-1].height, layouts[-1].width
    return layouts


def count_tiles(
    image: Tensor, layouts: list[TileLayout], backbone: Backbone, color_fix: str
) -> list[int]:
    """Count the tiles of each pass, as ``list_result_tiles`` lists them."""
    counts, size = [], image.shape[-2:]
    for layout in layouts:
        counts.append(len(list_result_tiles(*size, layout, backbone, color_fix)))
        size = layout.height, layout.width
    return counts


def plan_pass_texts(
    layouts: list[TileLayout],
    text_source: TextSource | None,
    prompt: str,
    tile_prompts: str,
    easy: list[list[int]],
) -> list[list[str]]:
    """Return a line for each tile of each pass: its text, "-" for no text, "" if a model writes it.

    ``easy`` has the indices of the easy tiles of each pass, which get no text.
    """
    counts = [len(layout.list_windows()) for layout in layouts]
    if text_source is None:
        tile_prompts = join_texts(choose_step_texts(prompt, tile_prompts, sum(counts)))
    lines = iter(split_step_lines(tile_prompts, sum(counts)))
    passes = [list(islice(lines, count)) for count in counts]
    for pass_lines, easy_indices in zip(passes, easy, strict=True):
        for i in easy_indices:
            pass_lines[i] = EMPTY_PROMPT_MARK
    return passes


def write_unused_lines_notice(tile_prompts: str, count: int) -> str:
    """Return a notice if there are more lines than tiles, otherwise ""."""
    lines = tile_prompts.split("\n")
    given = max((i for i, line in enumerate(lines, 1) if trim(line)), default=1)
    if given <= count:
        return ""
    return f"tile_prompts has {given} lines for {describe_count(count, 'tile')}: the extra lines are not used"


def describe_work(counts: list[int], lines: list[list[str]], easy: list[list[int]]) -> str:
    """Describe the work of a run, such as "15 + 247 tiles, 15 + 247 prompts".

    With easy tiles: "181 of 262 tiles by the model, 10 + 171 prompts".
    """
    prompts = [pass_lines.count("") for pass_lines in lines]
    tiles = describe_counts(counts, "tile")
    if any(easy):
        count = sum(counts)
        tiles = f"{count - sum(map(len, easy))} of {count} tiles by the model"
    return f"{tiles}, {describe_counts(prompts, 'prompt')}" if any(prompts) else tiles


def describe_counts(counts: list[int], noun: str) -> str:
    """Describe the counts of all passes: "1 tile" for one pass, "1 + 4 tiles" for two."""
    if len(counts) == 1:
        return describe_count(counts[0], noun)
    return f"{' + '.join(map(str, counts))} {noun}s"


def require_memory(
    height: int, width: int, scale: float, passes: int, blend_by_detail: bool
) -> None:
    """Refuse an image whose result does not fit into memory, before an hour is spent on it."""
    floats_per_pixel = 4 if blend_by_detail else 3  # the fourth is the weight of the pixel
    needed = 0
    for _ in range(passes):
        height, width = enlarge_side(height, scale), enlarge_side(width, scale)
        needed += height * width * floats_per_pixel * 4
    free = comfy.model_management.get_free_memory(comfy.model_management.intermediate_device())
    if needed > free:
        raise ValueError(
            f"the result would have {width} x {height} pixels and, with all passes, take "
            f"{needed / 1e9:.1f} GB, but {free / 1e9:.1f} GB of memory are free. Lower scale or passes, "
            "or crop the image first"
        )
