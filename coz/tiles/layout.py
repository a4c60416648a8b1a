"""Lay out the tiles of an image, in whole pixels."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor
from typing import NamedTuple

from ..geometry import Window


class TileRow(NamedTuple):
    """One row of tiles: ``y`` is their top edge, ``xs`` are their left edges, from left to right."""

    y: int
    xs: tuple[int, ...]


class TileLayout(NamedTuple):
    """Tiles of one size that cover a (height, width) image and stay inside it."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    rows: tuple[TileRow, ...]
    """From top to bottom. Each row covers the whole width."""

    def list_windows(self) -> list[Window]:
        """List all tiles row by row, in integers."""
        size = self.tile_width, self.tile_height
        return [Window(x, row.y, *size) for row in self.rows for x in row.xs]

    def list_cores(self) -> list[Window]:
        """List, in the same order, the part of each tile in which it counts most when blended.

        It ends in the middle of each overlap, so that the cores cover the image without overlap.
        """
        rows = _cut_overlaps([row.y for row in self.rows], self.tile_height, self.height)
        return [
            Window(left, top, right - left, bottom - top)
            for (top, bottom), row in zip(rows, self.rows, strict=True)
            for left, right in _cut_overlaps(row.xs, self.tile_width, self.width)
        ]


def _cut_overlaps(starts: Sequence[int], length: int, side: int) -> list[tuple[float, float]]:
    """Return (start, end) of each tile of one axis, without the halves of overlaps that neighbors get."""
    middles = [(before + length + start) / 2 for before, start in pairwise(starts)]
    return [*pairwise([0, *middles, side])]


def plan_layout(
    height: int, width: int, tile: int, overlap: int, multiple_of: int = 1
) -> TileLayout:
    """Plan the fewest tiles that overlap their neighbors by at least ``overlap`` pixels.

    Neighbors overlap by exactly ``overlap`` pixels, except for the last tile of a row or column,
    which is shifted inward to end with the image. A side shorter than ``tile`` gets one tile of its length.

    Args:
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        tile: Side of a tile, in pixels.
        overlap: Overlap in pixels, below ``tile``.
        multiple_of: All but the last tiles start at multiples of this many pixels, which makes
            overlaps a little larger. If the image was enlarged by this factor, these tiles start on
            pixels of the original. Ignored if tiles are less than this far apart.

    Raises:
        ValueError: If a side or ``tile`` is below 1, or ``overlap`` not in 0..tile - 1.
    """
    _require_sides(height, width, tile)
    if overlap < 0:
        raise ValueError(f"overlap must be 0 pixels or more, got {overlap}")
    if overlap >= tile:
        raise ValueError(
            f"overlap must be smaller than tile, got an overlap of {overlap} px on tiles of "
            f"{tile} px: choose an overlap of at most half a tile, {tile // 2} px"
        )
    stride = tile - overlap
    stride = stride // multiple_of * multiple_of or stride
    xs = _list_starts(width, tile, lambda x: stride)
    rows = tuple(TileRow(y, xs) for y in _list_starts(height, tile, lambda y: stride))
    return TileLayout(height, width, min(tile, height), min(tile, width), rows)


def split_side(side: int, longest: int, multiple_of: int = 1) -> list[tuple[int, int]]:
    """Divide a side into the fewest parts of nearly equal length that abut.

    Args:
        side: Length of the side in pixels, at least 1.
        longest: Maximum length of a part, in pixels.
        multiple_of: All parts start at multiples of this many pixels. Ignored if it exceeds
            ``longest``.

    Returns:
        (start, end) of each part, in order.
    """
    if side <= longest:
        return [(0, side)]
    if multiple_of > longest:
        multiple_of = 1
    units = ceil(side / multiple_of)
    count = ceil(units / (longest // multiple_of))
    bounds = [units * i // count * multiple_of for i in range(count)]
    return [*pairwise([*bounds, side])]


def plan_adaptive_layout(
    height: int,
    width: int,
    tile: int,
    complexity: Sequence[Sequence[float]],
    multiple_of: int = 1,
) -> TileLayout:
    """Plan tiles that overlap by a quarter where the image is calm, by half where it is complex.

    The distance between two rows is the same over their whole width: the most complex part of the upper row
    decides it. Columns may differ from row to row. So the blend weight of a pixel stays a product of two
    one-dimensional weights. The last tile of a row or column is shifted inward, as in ``plan_layout``.

    Args:
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        tile: Side of a tile, in pixels.
        complexity: Rows of a grid of any size that covers the whole image, from 0 (calm) to 1
            (complex), as ``rate_complexity`` returns it.
        multiple_of: As in ``plan_layout``; overlaps stay between a quarter and a half.

    Raises:
        ValueError: If a side or ``tile`` is below 1, the grid is empty or not a rectangle, or holds
            a number outside 0..1.
    """
    _require_sides(height, width, tile)
    if not complexity or not complexity[0] or len({len(row) for row in complexity}) > 1:
        raise ValueError("complexity must be a grid: rows of equal length, at least one number")
    if not all(0 <= value <= 1 for row in complexity for value in row):
        raise ValueError("complexity must be numbers from 0 (calm) to 1 (complex)")
    min_stride = tile - tile // 2
    max_stride = max(min_stride, tile - ceil(tile / 4))
    if ceil(min_stride / multiple_of) * multiple_of <= max_stride:
        min_stride = ceil(min_stride / multiple_of) * multiple_of
    min_overlap = tile - max_stride

    def choose_stride(*seams: Window) -> int:
        worst = max(_average_cells(complexity, height, width, seam) for seam in seams)
        wanted = max_stride - round((max_stride - min_stride) * worst)
        return max(min_stride, wanted // multiple_of * multiple_of)

    # Look at the strip that two tiles share at the smallest allowed overlap. If it is calm, that
    # overlap is kept; the more complex it is, the larger the overlap.
    def choose_row_stride(y: int) -> int:
        return choose_stride(
            *(Window(x, y + max_stride, tile, min_overlap) for x in range(0, width, tile))
        )

    def plan_row(y: int) -> TileRow:
        def choose_tile_stride(x: int) -> int:
            return choose_stride(Window(x + max_stride, y, min_overlap, tile))

        return TileRow(y, _list_starts(width, tile, choose_tile_stride))

    rows = tuple(plan_row(y) for y in _list_starts(height, tile, choose_row_stride))
    return TileLayout(height, width, min(tile, height), min(tile, width), rows)


def _require_sides(height: int, width: int, tile: int) -> None:
    if min(height, width) < 1:
        raise ValueError(f"the image must hold at least one pixel, got {width} x {height}")
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")


def _list_starts(side: int, tile: int, stride: Callable[[int], int]) -> tuple[int, ...]:
    """List where the tiles of one axis start; ``stride`` is the distance from a start to the next."""
    starts = [0]
    while starts[-1] + tile < side:
        starts.append(min(starts[-1] + stride(starts[-1]), side - tile))
    return tuple(starts)


def _average_cells(
    grid: Sequence[Sequence[float]], height: int, width: int, window: Window
) -> float:
    """Average the cells that a window touches, of a grid that covers a (height, width) image."""
    top, bottom = find_cells(window.y, window.height, height, len(grid))
    left, right = find_cells(window.x, window.width, width, len(grid[0]))
    return sum(sum(row[left:right]) for row in grid[top:bottom]) / (bottom - top) / (right - left)


def find_cells(start: float, length: float, side: int, count: int) -> tuple[int, int]:
    """Return the first cell that a part of a side touches, and the one after its last.

    ``count`` cells divide the side evenly. An empty part touches one cell.
    """
    first = floor(start * count / side)
    end = ceil(min(start + length, side) * count / side)
    # Tiles of one pixel do not overlap, so the strip that two of them share is empty.
    return first, max(end, first + 1)
