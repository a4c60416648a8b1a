"""Count how many pixels of the source a frame shows. All finer detail is invented.

Texts for the user call the source of a chain "the photograph".
"""

from decimal import ROUND_HALF_UP, Context
from math import log
from typing import NamedTuple

from .zoom_chain import ZoomChain

MIN_COMPARED_SIDE_PIXELS = 8
"""A frame is compared with the source only if it shows at least this many of the source's pixels along
each side: with fewer, a PSNR says how well a few colors match, and nothing about detail."""

TOO_FEW_REAL_PIXELS = "too few real pixels to compare"
"""Text for a frame that ``is_comparable`` rejects."""

COLOR_STOPS = ((63, 185, 80), (165, 201, 58), (227, 179, 65), (240, 136, 62), (248, 81, 73))
"""RGB colors (0..255) from green (all real) to red, for frames enlarged 1x, 4x, 16x, 64x, and 256x or
more. ``js/viewer/real_pixels.js`` has the same."""


class RealPixels(NamedTuple):
    """The part of the source that a frame shows, in pixels of the source.

    If x_0 was downscaled, later frames count pixels of x_0, because no more of the source reached them.
    """

    width: float
    height: float
    share: float
    """Real pixels for each pixel of the frame: 1 or more if nothing is invented."""


def count_real_pixels(chain: ZoomChain, layer: int) -> RealPixels:
    """Compute from ``ZoomChain.find_real_window`` how many real pixels a layer shows.

    Args:
        chain: Any chain; its pixel values are not read.
        layer: 0 is the source, 1 the first frame x_0, i + 1 the frame x_i.

    Raises:
        IndexError, ValueError: If the layer does not exist.
    """
    height, width = chain.frames[layer].shape[-2:]
    window = chain.find_real_window(layer)
    share = window.width * window.height / (width * height)
    return RealPixels(window.width, window.height, share)


def describe_real_pixels(real: RealPixels) -> str:
    """Describe the count in words: "all real", "8 x 8 real pixels", "less than one real pixel"."""
    if real.share >= 1:
        return "all real"
    width, height = round_to_three_digits(real.width), round_to_three_digits(real.height)
    if width * height < 1:
        return "less than one real pixel"
    noun = "real pixel" if width * height == 1 else "real pixels"
    return f"{width:.10g} x {height:.10g} {noun}"


def is_comparable(real: RealPixels) -> bool:
    """Whether the frame shows enough of the source to be compared with it."""
    return min(real.width, real.height) >= MIN_COMPARED_SIDE_PIXELS


def pick_real_pixels_color(share: float) -> tuple[int, int, int]:
    """Pick the RGB color (0..255) of a share of real pixels: green for 1 or more, red near 0.

    Args:
        share: Above 0, as in ``RealPixels``.

    Raises:
        ValueError: If ``share`` is not above 0.
    """
    if not share > 0:
        raise ValueError(f"share must be above 0, got {share:g}")
    last = len(COLOR_STOPS) - 1
    # One stop for each factor of 16 in pixels, that is 4x in magnification.
    place = min(max(-log(share, 16), 0.0), float(last))
    below = min(int(place), last - 1)
    part = place - below
    red, green, blue = (
        int(a + (b - a) * part + 0.5)  # rounds half up, as JavaScript's Math.round does
        for a, b in zip(COLOR_STOPS[below], COLOR_STOPS[below + 1], strict=True)
    )
    return red, green, blue


def round_to_three_digits(value: float) -> float:
    """Round to three digits, or to a whole number from 1000 on; half rounds up, as in ``js/factors.js``."""
    digits = max(3, len(str(int(value))))
    return float(Context(digits, ROUND_HALF_UP).create_decimal_from_float(value))
