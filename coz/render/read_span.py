"""Find the pixels of an image that are read to resample a part of it."""

from math import ceil, floor

from ..geometry import EDGE_TOLERANCE

MARGIN_PIXELS = 3
"""Pixels around a region that are read to enlarge it; to downscale it, more in proportion."""


class ReadSpan:
    """The pixels of an axis that are read to resample a span, and the span's position in them."""

    pixels: slice
    """The pixels to read."""
    beyond: tuple[int, int]
    """How many pixels the span reaches beyond each end of the axis. There the edge pixel is repeated."""
    start: float
    """Start of the span in the pixels that are read, those that are repeated included."""
    length: float

    def __init__(self, start: float, length: float, side: int, size: int):
        """Find the pixels to read, if a span is resampled to ``size`` pixels.

        The span is (start, length) on an axis of ``side`` pixels, and may reach beyond it.
        """
        end = start + length
        start = 0.0 if abs(start) < EDGE_TOLERANCE else start
        end = float(side) if abs(side - end) < EDGE_TOLERANCE else end
        is_whole = (start, end) == (0, side)
        margin = 0 if is_whole else ceil(MARGIN_PIXELS * max(1.0, (end - start) / size))
        self.beyond = max(0, ceil(-start)), max(0, ceil(end - side))
        first, last = max(floor(start) - margin, 0), min(ceil(end) + margin, side)
        self.pixels = slice(first, last)
        self.start = start - first + self.beyond[0]
        self.length = end - start
