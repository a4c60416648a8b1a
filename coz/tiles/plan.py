"""Plan the tiles of an enlarged image and cut their inputs, without enlarging the whole image."""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil, floor

from torch import Tensor

from ..geometry import EDGE_TOLERANCE, Target, Window, place_first_frame
from ..resample import crop, crop_mirrored, resize
from .layout import TileLayout, plan_adaptive_layout, plan_layout, split_side

MAX_SCALE_DENOMINATOR = 25
"""Largest denominator of a scale for which tiles can start on pixels of the image: 2.56 is 64 / 25."""

OVERVIEW_SHORT_SIDE_PIXELS = 512
"""Short side of the whole image in ``make_overview``. Source: Chain-of-Zoom inference_coz_full.py."""

MAX_OVERVIEW_LONG_SIDE_PIXELS = 2048
"""Limit of its long side: without it 10000 x 50 pixels would become 102400 x 512."""

RESIZE_MARGIN_PIXELS = 3
"""Input pixels that are read around a box to enlarge it; the bicubic filter needs two."""


def enlarge_side(side: int, scale: float) -> int:
    """Compute the length in pixels of a side after enlarging."""
    return max(1, round(side * scale))


def plan_tiles(
    height: int,
    width: int,
    scale: float,
    tile: int,
    overlap: int,
    complexity: Sequence[Sequence[float]] | None = None,
) -> TileLayout:
    """Plan the tiles of the enlarged image.

    Where the scale allows it, they start and end on pixels of the image, so that each tile can be
    compared with its input without interpolating the input.

    Args:
        height: Height of the image before it is enlarged, in pixels.
        width: Width of the image before it is enlarged, in pixels.
        scale: Factor along each axis; the enlarged sides are rounded.
        tile: Side of a tile in pixels of the enlarged image. It may be reduced a little, to end
            on a pixel of the image.
        overlap: Overlap in the same pixels. Not used with ``complexity``.
        complexity: As ``rate_complexity`` returns it. Overlaps are then 25 to 50 % of the tile.

    Raises:
        ValueError: As ``plan_layout`` and ``plan_adaptive_layout``.

    Source: Chain-of-Zoom inference_coz_full.py: tiles of 512 pixels that overlap by 128.
    """
    height, width = enlarge_side(height, scale), enlarge_side(width, scale)
    multiple = find_input_aligned_multiple(Fraction(scale), tile)
    tile -= tile % multiple
    if complexity is not None:
        return plan_adaptive_layout(height, width, tile, complexity, multiple)
    return plan_layout(height, width, tile, overlap, multiple)


def find_input_aligned_multiple(scale: Fraction, tile: int) -> int:
    """Find the smallest number of enlarged pixels that is a whole number of input pixels.

    It is 16 for 3.2x. If it exceeds an eighth of a tile, the result is 1.
    """
    multiple = scale.limit_denominator(MAX_SCALE_DENOMINATOR).numerator
    return multiple if multiple <= tile // 8 else 1


def plan_abutting_tiles(height: int, width: int, layout: TileLayout) -> list[Window]:
    """Plan tiles without overlap that cover a layout's image and are no larger than its tiles.

    Args:
        height: Height of the image before it is enlarged, in pixels.
        width: Width of the image before it is enlarged, in pixels.
        layout: A layout of the enlarged image.

    Returns:
        Windows of the enlarged image, row by row, nearly equal in size. They start on pixels of the
        image where the scale allows it.
    """

    def split(side: int, input_side: int, tile: int) -> list[tuple[int, int]]:
        return split_side(side, tile, find_input_aligned_multiple(Fraction(side, input_side), tile))

    rows = split(layout.height, height, layout.tile_height)
    columns = split(layout.width, width, layout.tile_width)
    return [Window(x, y, right - x, bottom - y) for y, bottom in rows for x, right in columns]


def find_tile_input(image: Tensor, layout: TileLayout, window: Window) -> Window:
    """Find the region of ``image`` that a window of the enlarged image shows, in pixels of ``image``."""
    height, width = image.shape[-2:]
    fx, fy = width / layout.width, height / layout.height
    return Window(window.x * fx, window.y * fy, window.width * fx, window.height * fy)


def cut_tile_view(image: Tensor, layout: TileLayout, window: Window) -> Tensor:
    """Enlarge only a window of the image: (1, C, h, w) float32, as if cut from the whole enlarged image.

    The window may reach beyond the image, which is mirrored there.
    """
    box = find_tile_input(image, layout, window)
    return resize_mirrored(image, int(window.height), int(window.width), box)


def resize_mirrored(image: Tensor, height: int, width: int, box: Window) -> Tensor:
    """Resize (bicubic) a box that may reach beyond the image, which is mirrored there."""
    x, y, w, h = box
    in_height, in_width = image.shape[-2:]
    beyond = max(x + w - in_width, y + h - in_height, -x, -y)
    if beyond > EDGE_TOLERANCE:
        left, top = floor(x) - RESIZE_MARGIN_PIXELS, floor(y) - RESIZE_MARGIN_PIXELS
        right, bottom = ceil(x + w) + RESIZE_MARGIN_PIXELS, ceil(y + h) + RESIZE_MARGIN_PIXELS
        image = crop_mirrored(image, Window(left, top, right - left, bottom - top))
        box = Window(x - left, y - top, w, h)
    return resize(image, height, width, box=box)


def cut_surroundings(image: Tensor, layout: TileLayout, window: Window) -> Tensor:
    """Cut a square around a tile's input from the image, with as many pixels as the enlarged tile.

    The square therefore shows more than the tile. It stands for the previous frame x_{i-1} when the tile's
    prompt is written. Along an axis on which the image is shorter, all of the image is taken.
    """
    height, width = image.shape[-2:]
    x, y, w, h = find_tile_input(image, layout, window)
    middle = Target((x + w / 2) / width, (y + h / 2) / height)
    side = int(max(window.height, window.width))
    return crop(image, place_first_frame(height, width, side, "native pixels", middle).window)


def make_overview(image: Tensor) -> Tensor:
    """Resize the whole image to a short side of 512 pixels: (1, C, h, w) float32, not clamped.

    Deviation: a long side is limited to 2048 pixels; the short side is then smaller.
    """
    height, width = image.shape[-2:]
    short, long = sorted((height, width))
    side = max(1, min(OVERVIEW_SHORT_SIDE_PIXELS, MAX_OVERVIEW_LONG_SIDE_PIXELS * short // long))
    whole = place_first_frame(height, width, side, "whole picture", Target(0.5, 0.5))
    return resize(image, whole.height, whole.width, "lanczos")
