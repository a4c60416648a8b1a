"""How far an upscale network looks: the distance from which an image's edge changes its result."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

MIN_REACH_PIXELS, MAX_REACH_PIXELS = 8, 64
"""Source pixels. Networks that look at the whole image, as by attention, get the greatest."""

REACH_MULTIPLE_PIXELS = 8
"""Source pixels to a multiple of which a reach is rounded up."""

VISIBLE_CHANGE = 0.25 / 255
"""Change of a value, in parts of white: a quarter of a level of 8 bits."""

STRIP_HEIGHT_PIXELS, STRIP_WIDTH_PIXELS = 32, 160
"""Source pixels: an edge at one end, and MAX_REACH pixels with room to spare on its inner side."""

TEXTURE_AMPLITUDE = 0.25
"""Greatest deviation of the textured strip from mid-grey, in parts of white."""

ODD_CUT_PIXELS = 13
"""Source pixels: no multiple of the windows or strides that networks are built with."""


class Reach(NamedTuple):
    """What a network needs around a region, so that the region comes out as in the whole image."""

    pixels: int
    """Source pixels of surroundings."""
    is_periodic: bool
    """Whether the result also depends on where a region begins, as with attention in windows."""


def measure_reach(upscale: Callable[[Tensor], Tensor]) -> Reach:
    """Measure how far from its edges a network's result differs from that of a wider image.

    A mid-grey strip is upscaled as a whole and with its left end cut off. It is flat once and
    textured once: flat, it shows what the network draws along an edge; textured, what it misses
    of the pixels behind the edge. If the two results still differ far away from the cut, where
    the strip begins matters as well; then the cut is made again at a multiple of every usual
    window, and that distance counts. The same network always gives the same reach.

    Args:
        upscale: (2, 3, H, W) float32 in [0, 1] to (2, C, H * s, W * s) for any whole factor s.

    Returns:
        The distance beyond which no value moves by more than 0.25 / 255, rounded up to a multiple
        of 8 pixels and limited to 8 to 64; and whether it matters where a region begins.

    Raises:
        ValueError: If a result holds NaN or infinite values.
    """
    strip = torch.full((2, 3, STRIP_HEIGHT_PIXELS, STRIP_WIDTH_PIXELS), 0.5)
    noise = torch.rand(strip.shape[1:], generator=torch.Generator().manual_seed(0))
    strip[1] += TEXTURE_AMPLITUDE * (2 * noise - 1)
    whole = upscale(strip)
    if not whole.isfinite().all():
        raise ValueError("the upscale model makes NaN or infinite values of a grey image")
    pixels = _count_changed_columns(whole, upscale(strip[..., ODD_CUT_PIXELS:].contiguous()))
    is_periodic = pixels > MAX_REACH_PIXELS
    if is_periodic:
        pixels = _count_changed_columns(whole, upscale(strip[..., MAX_REACH_PIXELS:].contiguous()))
    pixels = REACH_MULTIPLE_PIXELS * ceil(pixels / REACH_MULTIPLE_PIXELS)
    return Reach(min(max(pixels, MIN_REACH_PIXELS), MAX_REACH_PIXELS), is_periodic)


def _count_changed_columns(whole: Tensor, cut: Tensor) -> int:
    """Source pixels from the left edge of ``cut`` to the last one that is not as in ``whole``."""
    difference = (whole[..., -cut.shape[-1] :] - cut).abs().amax((0, 1, 2))
    seen = torch.nonzero(~(difference <= VISIBLE_CHANGE))
    return ceil((int(seen[-1]) + 1) * STRIP_WIDTH_PIXELS / whole.shape[-1]) if len(seen) else 0
