"""Where the tiles of a picture lie, in whole pixels."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor
from typing import NamedTuple

from ..geometry import Window


class TileRow(NamedTuple):
    """One row of tiles: all begin at ``y``, and ``xs`` are their left edges, from left to right."""

    y: int
    xs: tuple[int, ...]


class TileLayout(NamedTuple):
    """Tiles of one size that cover a (height, width) picture and stay inside it."""

    height: int
    width: int
    tile_height: int
    tile_width: int
    rows: tuple[TileRow, ...]
    """From top to bottom. Each row covers the whole width."""

    def windows(self) -> list[Window]:
        """All tiles, row by row, in integers."""
        size = self.tile_width, self.tile_height
        return [Window(x, row.y, *size) for row in self.rows for x in row.xs]


def plan_layout(
    height: int, width: int, tile: int, overlap: int, multiple_of: int = 1
) -> TileLayout:
    """The fewest tiles whose neighbours share at least ``overlap`` pixels.

    Neighbours share exactly ``overlap`` pixels, save for the last tile of a row or column, which
    is shifted inward to end with the picture. A side shorter than ``tile`` is one tile long.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        tile: side of a tile, in pixels.
        overlap: in pixels, below ``tile``.
        multiple_of: where all but the last tiles begin, in pixels, for which neighbours share a
            little more; with the factor by which the picture was enlarged, each tile begins on a
            pixel of its source. Left out where neighbours are nearer than that.

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
        side: in pixels, at least 1.
        longest: length that no part exceeds, in pixels.
        multiple_of: where all parts but the first begin, in pixels. Ignored if ``longest`` is
            shorter than that.

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
    """Tiles that share a quarter of their side where the picture is calm, half where it is complex.

    Rows come first: a row keeps one distance to the next, as its most complex part needs. Columns
    then differ from row to row. So a pixel's blend weight stays a product of two one-dimensional
    ones. The last tile of a row or column is shifted inward, as in ``plan_layout``.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        tile: side of a tile, in pixels.
        complexity: 0 (calm) to 1 (complex) on a grid of any size laid over the whole picture, row
            by row (``complexity_map``).
        multiple_of: as in ``plan_layout``; overlaps stay between a quarter and a half.

    Raises:
        ValueError: If a side or ``tile`` is below 1, the grid is empty or not a rectangle, or one
            of its numbers not in 0..1.
    """
    _require_sides(height, width, tile)
    if not complexity or not complexity[0] or len({len(row) for row in complexity}) > 1:
        raise ValueError("complexity must be a grid: rows of equal length, at least one number")
    if not all(0 <= value <= 1 for row in complexity for value in row):
        raise ValueError("complexity must be numbers from 0 (calm) to 1 (complex)")
    near = tile - tile // 2
    far = max(near, tile - ceil(tile / 4))
    if ceil(near / multiple_of) * multiple_of <= far:
        near = ceil(near / multiple_of) * multiple_of
    shared = tile - far

    def stride(*seams: Window) -> int:
        worst = max(_average_cells(complexity, height, width, seam) for seam in seams)
        return max(near, (far - round((far - near) * worst)) // multiple_of * multiple_of)

    # What a tile shares with the next in any case decides how much more they share: where that
    # part is calm, the seam lies in it.
    def row_stride(y: int) -> int:
        return stride(*(Window(x, y + far, tile, shared) for x in range(0, width, tile)))

    def row(y: int) -> TileRow:
        return TileRow(
            y, _list_starts(width, tile, lambda x: stride(Window(x + far, y, shared, tile)))
        )

    rows = tuple(row(y) for y in _list_starts(height, tile, row_stride))
    return TileLayout(height, width, min(tile, height), min(tile, width), rows)


def _require_sides(height: int, width: int, tile: int) -> None:
    if min(height, width) < 1:
        raise ValueError(f"the image must hold at least one pixel, got {width} x {height}")
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")


def _list_starts(side: int, tile: int, stride: Callable[[int], int]) -> tuple[int, ...]:
    """Where the tiles of one axis begin; ``stride`` is how far from one start to the next."""
    starts = [0]
    while starts[-1] + tile < side:
        starts.append(min(starts[-1] + stride(starts[-1]), side - tile))
    return tuple(starts)


def _average_cells(
    grid: Sequence[Sequence[float]], height: int, width: int, window: Window
) -> float:
    """Mean of the cells of a grid over a (height, width) picture that a window touches."""
    top, bottom = _find_cells(window.y, window.height, height, len(grid))
    left, right = _find_cells(window.x, window.width, width, len(grid[0]))
    return sum(sum(row[left:right]) for row in grid[top:bottom]) / (bottom - top) / (right - left)


def _find_cells(start: float, length: float, side: int, count: int) -> tuple[int, int]:
    first = floor(start * count / side)
    end = ceil(min(start + length, side) * count / side)
    # Tiles of one pixel share none, and still ask.
    return first, max(end, first + 1)
