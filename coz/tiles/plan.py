"""Tiles of an enlarged picture, and what each is a view of; the whole is never enlarged at once."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

from torch import Tensor

from ..geometry import EDGE_TOLERANCE, Target, Window, place_first_frame
from ..resample import crop, crop_mirrored, resize
from .layout import TileLayout, plan_adaptive_layout, plan_layout, split_side

MAX_SCALE_DENOMINATOR = 25
"""Of a factor for which tiles can begin on pixels of the picture: 2.56 is 64 / 25, 1.61 is none."""

OVERVIEW_SHORT_SIDE_PIXELS = 512
"""Chain-of-Zoom inference_coz_full.py: the short side of the whole picture that a VLM is shown."""

MAX_OVERVIEW_LONG_SIDE_PIXELS = 2048
"""Of its long side: 10000 x 50 pixels would become 102400 x 512."""

RESIZE_MARGIN_PIXELS = 3
"""Source pixels beside a box that resizing it reads, at any factor: those of lanczos."""


def enlarge_side(side: int, scale: float) -> int:
    """A side in pixels after one pass."""
    return max(1, round(side * scale))


def plan_tiles(
    height: int,
    width: int,
    scale: float,
    tile: int,
    overlap: int,
    complexity: Sequence[Sequence[float]] | None = None,
) -> TileLayout:
    """Where the tiles of the enlarged picture lie.

    They begin and end on pixels of the picture where the factor allows it: a tile whose source had
    to be cut through pixels could be compared with an interpolated source only.

    Args:
        height: of the picture before it is enlarged, in pixels.
        width: of the same, in pixels.
        scale: Factor of an axis; the enlarged sides are rounded.
        tile: Side of a tile in pixels of the enlarged picture; a little less where that needs it.
        overlap: In the same pixels. Not used with ``complexity``.
        complexity: Of the picture (``complexity_map``): overlaps of 25 to 50 % of the tile by it.

    Raises:
        ValueError: If ``tile`` or ``overlap`` is not possible.

    Source: Chain-of-Zoom inference_coz_full.py: tiles of 512 pixels that share 128.
    """
    height, width = enlarge_side(height, scale), enlarge_side(width, scale)
    multiple = find_grid_multiple(Fraction(scale), tile)
    tile -= tile % multiple
    if complexity is not None:
        return plan_adaptive_layout(height, width, tile, complexity, multiple)
    return plan_layout(height, width, tile, overlap, multiple)


def find_grid_multiple(scale: Fraction, tile: int) -> int:
    """Result pixels a multiple of which is a whole number of source pixels; 1 if too many for a tile."""
    multiple = scale.limit_denominator(MAX_SCALE_DENOMINATOR).numerator
    return multiple if multiple <= tile // 8 else 1


def plan_abutting_tiles(height: int, width: int, layout: TileLayout) -> list[Window]:
    """Tiles no larger than those of a layout that cover its picture without any overlap.

    Args:
        height: of the picture before it is enlarged, in pixels.
        width: of the same, in pixels.
        layout: of the enlarged picture.

    Returns:
        Windows of the enlarged picture, row by row, nearly equal in size. They begin on pixels of
        the picture where the factor allows it.
    """

    def parts(side: int, source: int, tile: int) -> list[tuple[int, int]]:
        return split_side(side, tile, find_grid_multiple(Fraction(side, source), tile))

    rows = parts(layout.height, height, layout.tile_height)
    columns = parts(layout.width, width, layout.tile_width)
    return [Window(x, y, right - x, bottom - y) for y, bottom in rows for x, right in columns]


def find_tile_source(image: Tensor, layout: TileLayout, window: Window) -> Window:
    """The region of ``image`` that a window of the enlarged picture shows, in pixels of ``image``."""
    height, width = image.shape[-2:]
    fx, fy = width / layout.width, height / layout.height
    return Window(window.x * fx, window.y * fy, window.width * fx, window.height * fy)


def cut_tile_view(image: Tensor, layout: TileLayout, window: Window) -> Tensor:
    """A window of the enlarged picture: (1, C, h, w) float32, as if the whole had been enlarged.

    A window may reach beyond the picture, which is mirrored there.
    """
    box = find_tile_source(image, layout, window)
    return resize_mirrored(image, int(window.height), int(window.width), box)


def resize_mirrored(image: Tensor, height: int, width: int, box: Window) -> Tensor:
    """``resize`` by bicubic of a box that may reach beyond the image, which is mirrored there."""
    x, y, w, h = box
    in_height, in_width = image.shape[-2:]
    beyond = max(x + w - in_width, y + h - in_height, -x, -y)
    if beyond > EDGE_TOLERANCE:
        left, top = floor(x) - RESIZE_MARGIN_PIXELS, floor(y) - RESIZE_MARGIN_PIXELS
        right, bottom = ceil(x + w) + RESIZE_MARGIN_PIXELS, ceil(y + h) + RESIZE_MARGIN_PIXELS
        image = crop_mirrored(image, Window(left, top, right - left, bottom - top))
        box = Window(x - left, y - top, w, h)
    return resize(image, height, width, box=box)


def cut_wider_view(image: Tensor, layout: TileLayout, window: Window) -> Tensor:
    """The picture around what a tile shows, with as many pixels as the tile: the tile's x_{i-1}."""
    height, width = image.shape[-2:]
    x, y, w, h = find_tile_source(image, layout, window)
    middle = Target((x + w / 2) / width, (y + h / 2) / height)
    side = int(max(window.height, window.width))
    return crop(image, place_first_frame(height, width, side, "native pixels", middle).window)


def make_overview(image: Tensor) -> Tensor:
    """The whole picture with a short side of 512 pixels: (1, C, h, w) float32, not clamped.

    Deviation: of a strip the long side has 2048 and the short side less.
    """
    height, width = image.shape[-2:]
    short, long = sorted((height, width))
    side = max(1, min(OVERVIEW_SHORT_SIDE_PIXELS, MAX_OVERVIEW_LONG_SIDE_PIXELS * short // long))
    whole = place_first_frame(height, width, side, "whole picture", Target(0.5, 0.5))
    return resize(image, whole.height, whole.width, "lanczos")
