"""Measure the reach of an upscale network: how far from an edge of the image its result changes."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

MIN_REACH_PIXELS, MAX_REACH_PIXELS = 8, 64
"""Limits of a reach, in input pixels. Networks that use the whole image, as by attention, get the
maximum."""

REACH_MULTIPLE_PIXELS = 8
"""A reach is rounded up to a multiple of this many input pixels."""

VISIBLE_CHANGE = 0.25 / 255
"""Smallest change of a value that counts: a quarter of an 8-bit level."""

STRIP_HEIGHT_PIXELS, STRIP_WIDTH_PIXELS = 32, 96
"""Size of the test strip. It is longer than the maximum reach even after its left end, ``ODD_CUT_PIXELS``
wide, is cut off."""

LONG_STRIP_WIDTH_PIXELS = 160
"""Width of the strip that is longer than the maximum reach even after ``MAX_REACH_PIXELS`` are cut off."""

TEXTURE_AMPLITUDE = 0.25
"""Maximum deviation of the textured strip from mid-gray, where 1 is white."""

ODD_CUT_PIXELS = 13
"""Width of the end that is cut off: no multiple of the usual windows and strides of networks."""


class Reach(NamedTuple):
    """The surroundings that a network needs to upscale a region as it would in the whole image."""

    pixels: int
    """Width of the surroundings in input pixels."""
    is_periodic: bool
    """Whether the result also depends on where the region starts, as with attention in windows."""


def measure_reach(upscale: Callable[[Tensor], Tensor]) -> Reach:
    """Measure how far from an edge a network's result differs from that of a wider image.

    Two mid-gray strips are upscaled whole and with the left end cut off. The flat strip shows what
    the network draws along an edge, the textured strip how it uses the pixels beyond the edge. If
    the results still differ far away from the cut, they also depend on where the strip starts. Then
    the measurement is repeated on longer strips with a cut at a multiple of every usual window. It
    is deterministic.

    Args:
        upscale: Maps (2, 3, H, W) float32 in [0, 1] to (2, C, H * s, W * s) for any whole factor s.

    Returns:
        The distance beyond which no value changes by more than 0.25 / 255, rounded up to a multiple
        of 8 pixels and limited to 8..64, and whether the start of a region matters.

    Raises:
        ValueError: If a result holds NaN or infinite values.
    """
    long_strip = torch.full((2, 3, STRIP_HEIGHT_PIXELS, LONG_STRIP_WIDTH_PIXELS), 0.5)
    noise = torch.rand(long_strip.shape[1:], generator=torch.Generator().manual_seed(0))
    long_strip[1] += TEXTURE_AMPLITUDE * (2 * noise - 1)
    strip = long_strip[..., :STRIP_WIDTH_PIXELS].contiguous()
    pixels = _count_changed_columns(upscale, strip, ODD_CUT_PIXELS)
    is_periodic = pixels > MAX_REACH_PIXELS
    if is_periodic:
        pixels = _count_changed_columns(upscale, long_strip, MAX_REACH_PIXELS)
    pixels = REACH_MULTIPLE_PIXELS * ceil(pixels / REACH_MULTIPLE_PIXELS)
    return Reach(min(max(pixels, MIN_REACH_PIXELS), MAX_REACH_PIXELS), is_periodic)


def _count_changed_columns(upscale: Callable[[Tensor], Tensor], strip: Tensor, cut: int) -> int:
    """Count the input pixels from where the strip is cut to the last one that changes by the cut."""
    whole, rest = upscale(strip), upscale(strip[..., cut:].contiguous())
    if not whole.isfinite().all():
        raise ValueError("the upscale model returns NaN or infinite values for a gray image")
    difference = (whole[..., -rest.shape[-1] :] - rest).abs().amax((0, 1, 2))
    changed = torch.nonzero(~(difference <= VISIBLE_CHANGE))
    return ceil((int(changed[-1]) + 1) * strip.shape[-1] / whole.shape[-1]) if len(changed) else 0
