"""Where a chain looks: windows of a picture, the first frame, the target carried along, tiles.

Everything here is arithmetic on sizes; no pixel is touched. Coordinates are continuous: pixel k
of a row covers [k, k + 1), so a fraction c of a frame W pixels wide is the point c * W.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import ceil, floor
from typing import Literal, NamedTuple, get_args

FrameMode = Literal["native pixels", "whole picture square", "whole picture"]

FRAME_MODES: list[FrameMode] = list(get_args(FrameMode))

EDGE_TOLERANCE = 1e-6
"""Pixels by which rounding may move an edge: 805 / 1.61 is 499.999... in floats and 500 in truth."""


class Window(NamedTuple):
    """A region of an image in its own pixels; integers where it is cropped, floats elsewhere."""

    x: float
    y: float
    width: float
    height: float


class Target(NamedTuple):
    """The point a chain zooms into, as fractions (0..1) of the image it is given with."""

    x: float
    y: float


CENTER = Target(0.5, 0.5)


class FirstFrame(NamedTuple):
    """How x_0 is taken from the source: ``window``, resized to (height, width)."""

    height: int
    width: int
    window: Window
    """In the source's own pixels; integers, and of the same size, for "native pixels"."""
    target: Target
    """The target's place in x_0."""


class ZoomStep(NamedTuple):
    """One step of a plan: the window cut from the frame, and where in it the target lies."""

    window: Window
    aim: Target
    """The target as a fraction of the frame the window is cut from."""


class ZoomPlan(NamedTuple):
    """Where a chain looks, from the source to its deepest frame."""

    scale: float
    """Factor asked of each step."""
    target: Target
    """As fractions of the source."""
    first: FirstFrame
    steps: list[ZoomStep]
    seed: int = 0
    """Each step draws its own from it."""


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


def zoom_window(height: int, width: int, scale: float, target: Target) -> Window:
    """The window that fills a (height, width) frame when enlarged ``scale`` times.

    Centred on the target and clamped inside the frame. A side is floor(side / scale), and never
    less than one pixel: the true factor of an axis is ``width / window.width``.

    Raises:
        ValueError: If a side is below 1 pixel, the scale below 1, or the target outside 0..1.

    Source: Chain-of-Zoom inference_coz.py, crop of each recursion (w // rscale).
    Deviation: any target (upstream: the centre); sides are exact for scales such as 3.2.
    """
    if not scale >= 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    x, w = _span(width, scale, target.x, "center_x")
    y, h = _span(height, scale, target.y, "center_y")
    return Window(x, y, w, h)


def carry_target(height: int, width: int, window: Window, target: Target) -> Target:
    """The target's place in the frame that ``window`` of a (height, width) frame becomes."""
    x = (target.x * width - window.x) / window.width
    y = (target.y * height - window.y) / window.height
    # A target on the very edge of a window may be rounded to the far side of it.
    return Target(min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0))


def plan_steps(height: int, width: int, scale: float, steps: int, target: Target) -> list[ZoomStep]:
    """Windows of ``steps`` zooms; each is in pixels of the frame before it.

    Every frame has the same (height, width). Where clamping moved a window, the next one aims at
    the target's true place in the new frame, not at its middle.
    """
    plan: list[ZoomStep] = []
    for _ in range(steps):
        window = zoom_window(height, width, scale, target)
        plan.append(ZoomStep(window, target))
        target = carry_target(height, width, window, target)
    return plan


def first_frame(height: int, width: int, size: int, frame: FrameMode, target: Target) -> FirstFrame:
    """Where x_0 lies in a (height, width) source.

    Args:
        height: of the source, in pixels.
        width: of the source, in pixels.
        size: side of x_0 in pixels ("whole picture": its short side).
        frame: "native pixels" crops without resizing, so every pixel of x_0 is the source's, and
            takes the whole side where the source is smaller than ``size``. "whole picture square"
            resizes the short side to ``size`` and crops a square. "whole picture" resizes and
            keeps the shape.
        target: as fractions of the source.

    Raises:
        ValueError: If the source is empty, ``size`` below 1, or the target outside 0..1.

    Source: Chain-of-Zoom utils, resize_and_center_crop ("whole picture square").
    Deviation: the short side is exactly ``size`` (upstream's int() may lose a pixel and pads a
        black edge then); the crop follows the target (upstream: the centre).
    """
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    if min(height, width) < 1:
        raise ValueError(f"the image must hold at least one pixel, got {width} x {height}")
    if frame == "native pixels":
        h, w = height, width
    else:
        short = min(height, width)
        h = max(size, height * size // short)
        w = max(size, width * size // short)
    crop_h, crop_w = (h, w) if frame == "whole picture" else (min(size, h), min(size, w))
    x, _ = _span(w, w / crop_w, target.x, "center_x")
    y, _ = _span(h, h / crop_h, target.y, "center_y")
    window = Window(x * width / w, y * height / h, crop_w * width / w, crop_h * height / h)
    return FirstFrame(crop_h, crop_w, window, carry_target(height, width, window, target))


def plan_zoom(
    height: int,
    width: int,
    steps: int = 4,
    scale: float = 4.0,
    target: Target = CENTER,
    frame: FrameMode = "native pixels",
    size: int = 512,
    seed: int = 0,
) -> ZoomPlan:
    """Plan a chain for a (height, width) source; the arguments are those of Chain Loop.

    Raises:
        ValueError: As ``first_frame`` and ``zoom_window``.
    """
    first = first_frame(height, width, size, frame, target)
    plan = plan_steps(first.height, first.width, scale, steps, first.target)
    return ZoomPlan(scale, target, first, plan, seed)


def tile_layout(
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
    _check_tiles(height, width, tile)
    if overlap < 0:
        raise ValueError(f"overlap must be 0 pixels or more, got {overlap}")
    if overlap >= tile:
        raise ValueError(
            f"overlap must be smaller than tile, got an overlap of {overlap} px on tiles of "
            f"{tile} px: choose an overlap of at most half a tile, {tile // 2} px"
        )
    stride = tile - overlap
    stride = stride // multiple_of * multiple_of or stride
    xs = _starts(width, tile, lambda x: stride)
    rows = tuple(TileRow(y, xs) for y in _starts(height, tile, lambda y: stride))
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


def adaptive_layout(
    height: int,
    width: int,
    tile: int,
    complexity: Sequence[Sequence[float]],
    multiple_of: int = 1,
) -> TileLayout:
    """Tiles that share a quarter of their side where the picture is calm, half where it is complex.

    Rows come first: a row keeps one distance to the next, as its most complex part needs. Columns
    then differ from row to row. So a pixel's blend weight stays a product of two one-dimensional
    ones. The last tile of a row or column is shifted inward, as in ``tile_layout``.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        tile: side of a tile, in pixels.
        complexity: 0 (calm) to 1 (complex) on a grid of any size laid over the whole picture, row
            by row (``complexity_map``).
        multiple_of: as in ``tile_layout``; overlaps stay between a quarter and a half.

    Raises:
        ValueError: If a side or ``tile`` is below 1, the grid is empty or not a rectangle, or one
            of its numbers not in 0..1.
    """
    _check_tiles(height, width, tile)
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
        worst = max(_mean(complexity, height, width, seam) for seam in seams)
        return max(near, (far - round((far - near) * worst)) // multiple_of * multiple_of)

    # What a tile shares with the next in any case decides how much more they share: where that
    # part is calm, the seam lies in it.
    def row_stride(y: int) -> int:
        return stride(*(Window(x, y + far, tile, shared) for x in range(0, width, tile)))

    def row(y: int) -> TileRow:
        return TileRow(y, _starts(width, tile, lambda x: stride(Window(x + far, y, shared, tile))))

    rows = tuple(row(y) for y in _starts(height, tile, row_stride))
    return TileLayout(height, width, min(tile, height), min(tile, width), rows)


def _check_tiles(height: int, width: int, tile: int) -> None:
    if min(height, width) < 1:
        raise ValueError(f"the image must hold at least one pixel, got {width} x {height}")
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")


def _starts(side: int, tile: int, stride: Callable[[int], int]) -> tuple[int, ...]:
    """Where the tiles of one axis begin; ``stride`` is how far from one start to the next."""
    starts = [0]
    while starts[-1] + tile < side:
        starts.append(min(starts[-1] + stride(starts[-1]), side - tile))
    return tuple(starts)


def _mean(grid: Sequence[Sequence[float]], height: int, width: int, window: Window) -> float:
    """Mean of the cells of a grid over a (height, width) picture that a window touches."""
    top, bottom = _cells(window.y, window.height, height, len(grid))
    left, right = _cells(window.x, window.width, width, len(grid[0]))
    return sum(sum(row[left:right]) for row in grid[top:bottom]) / (bottom - top) / (right - left)


def _cells(start: float, length: float, side: int, count: int) -> tuple[int, int]:
    first = floor(start * count / side)
    end = ceil(min(start + length, side) * count / side)
    # Tiles of one pixel share none, and still ask.
    return first, max(end, first + 1)


def _span(side: int, scale: float, center: float, name: str) -> tuple[int, int]:
    if side < 1:
        raise ValueError(f"the image must hold at least one pixel, got a side of {side}")
    if not 0 <= center <= 1:
        raise ValueError(f"{name} must be a fraction of the image, 0 to 1, got {center}")
    length = max(1, floor(side / scale + EDGE_TOLERANCE))
    # The nearest place, and the left of two: upstream's floor for a centred window, and a window
    # of one pixel still holds its target.
    start = ceil(center * side - length / 2 - 0.5 - EDGE_TOLERANCE)
    return min(max(start, 0), side - length), length
