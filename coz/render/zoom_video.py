"""The frames of a continuous zoom through a chain, from the whole source into the deepest frame."""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil, exp, floor, inf, log
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..chain.zoom_chain import ZoomChain
from ..geometry import EDGE_TOLERANCE, Window
from ..resample import resize

Easing = Literal["none", "smooth"]

EASINGS: list[Easing] = list(get_args(Easing))

Value = TypeVar("Value", float, Tensor)

FADE_SHARE = 1 / 3
"""A layer fades in during this part of the zoom from the layer around it."""

MAX_FEATHER_SHARE = 0.15
"""Most that a layer's soft edge takes of its side."""

REDUCING_GAP = 3
"""Source pixels to one of a film, along a side, that halving the source first leaves at least.

Pillow Image.resize, reducing_gap: from 3 on it can hardly be told from the full computation.
"""

MARGIN_PIXELS = 3
"""Pixels around a region that weigh in when it is enlarged; more of them when it is shrunk."""

SCALE_TOLERANCE = 1e-6
"""Part by which the factor between two scales may differ from 1, and they are one."""


def plan_zoom_times(
    seconds: float, hold: float, fps: float, easing: Easing = "none"
) -> list[float]:
    """The place in the zoom, 0 to 1, of each frame of a film.

    Args:
        seconds: that the motion takes.
        hold: Seconds of rest before and after it.
        fps: Frames a second.
        easing: "smooth" starts and ends at rest (3t^2 - 2t^3), "none" moves steadily.

    Returns:
        round((seconds + 2 * hold) * fps) places, two at least; the first is 0, the last 1.

    Raises:
        ValueError: If a duration is below 0, ``fps`` not above it, or one of them infinite or NaN.
    """
    if not (0 <= seconds < inf and 0 <= hold < inf and 0 < fps < inf):
        raise ValueError(
            "the zoom (seconds_per_step) and its rests (hold) must be at least 0 seconds and fps "
            f"above 0, and none without end, got {seconds:g} s, {hold:g} s and {fps:g}"
        )
    length = seconds + 2 * hold
    count = max(2, round(length * fps))
    clocks = (length * k / (count - 1) - hold for k in range(count))
    places = [min(max(clock / seconds, 0.0), 1.0) if seconds else 1.0 for clock in clocks]
    places[0], places[-1] = 0.0, 1.0
    return [smooth(t) for t in places] if easing == "smooth" else places


class _Axis:
    """One axis of the motion: spans (start, length) of the view, in the pixels of any layer.

    The view shrinks by the same factor in equal times, towards a point that does not move on the
    screen. All is reckoned from the deepest layer upwards: 16 steps below it a window is too small
    for the source's own coordinates, but there its errors only shrink.
    """

    def __init__(
        self,
        sides: Sequence[int],
        windows: Sequence[tuple[float, float]],
        start: tuple[float, float],
        end: tuple[float, float],
    ):
        """From the span ``start`` of the outermost layer to the span ``end`` of the deepest."""
        self.enlarged = [1.0]
        begin = start[0]
        for side, (x, length) in zip(sides[1:], windows, strict=True):
            self.enlarged.append(self.enlarged[-1] * side / length)
            begin = (begin - x) * side / length
        self.length = start[1]
        length = start[1] * self.enlarged[-1]
        self.shrink = max(0.0, log(length / end[1]))
        # The fixed point: its place on the screen, then in every layer.
        self.anchor = (end[0] - begin) / (length - end[1]) if self.shrink > SCALE_TOLERANCE else 0.0
        self.points = [end[0] + self.anchor * end[1]]
        for side, (x, length) in zip(reversed(sides[1:]), reversed(windows), strict=True):
            self.points.insert(0, x + self.points[0] * length / side)

    def span(self, layer: int, t: float) -> tuple[float, float]:
        length = self.length * self.enlarged[layer] * exp(-self.shrink * t)
        return self.points[layer] - self.anchor * length, length


class Zoom:
    """A chain as one steady zoom: how long it is, and what is seen at any place of it.

    It starts with the largest part of the source, and ends with the largest part of the deepest
    frame, that have the film's shape; both hold the target.
    """

    steps: float
    """Length of the zoom, in steps of the chain's scale; the way from the source to x_0 counts."""

    def __init__(self, chain: ZoomChain, height: int, width: int):
        """Plan the zoom; no pixel is touched.

        Args:
            chain: frames in [0, 1].
            height: of a film's frame, in pixels.
            width: of a film's frame, in pixels.

        Raises:
            ValueError: If a side is below 1.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a frame must hold at least one pixel, got {width} x {height}")
        self.chain, self.height, self.width = chain, height, width
        self.start, self.end = _find_end_views(chain, height, width)
        self.x, self.y = (
            _Axis(
                [frame.shape[side] for frame in chain.frames],
                [(window[k], window[k + 2]) for window in chain.windows],
                (self.start[k], self.start[k + 2]),
                (self.end[k], self.end[k + 2]),
            )
            for k, side in ((0, -1), (1, -2))
        )
        self.steps = (self.x.shrink + self.y.shrink) / 2 / log(chain.scale)
        self.halves = [chain.frames[0]]

    def view(self, layer: int, t: float) -> Window:
        """What is seen at place ``t`` (0 to 1), in the pixels of a layer; it may reach beyond it."""
        (x, width), (y, height) = self.x.span(layer, t), self.y.span(layer, t)
        return Window(x, y, width, height)

    def frames(self, times: Iterable[float]) -> Iterator[Tensor]:
        """The frames at these places, one at a time; see ``frame``. A rest repeats one tensor."""
        shown, frame = -1.0, torch.empty(0)
        for t in times:
            if t != shown:
                shown, frame = t, self.frame(t)
            yield frame

    def frame(self, t: float) -> Tensor:
        """The view at place ``t`` (0 to 1) of the zoom.

        It is taken from the deepest layer that covers it. The next ones lie in it: each fades in
        while it is small, and its soft edge vanishes where it reaches the edge of the view.

        Returns:
            (1, 3, height, width) float32 in [0, 1].
        """
        views = [self.view(layer, t) for layer in range(len(self.chain.frames))]
        base = max(
            layer for layer, view in enumerate(views) if layer == 0 or self._covers(layer, view)
        )
        image = self._resample(base, views[base], self.height, self.width).clamp(0, 1)
        for layer in range(base + 1, len(views)):
            weight = self.weight(layer, views[layer])
            if weight == 0:
                break
            self._lay(image, layer, views[layer], weight)
        return image

    def _covers(self, layer: int, view: Window) -> bool:
        height, width = self.chain.frames[layer].shape[-2:]
        return (
            min(view.x, view.y) > -EDGE_TOLERANCE
            and view.x + view.width < width + EDGE_TOLERANCE
            and view.y + view.height < height + EDGE_TOLERANCE
        )

    def weight(self, layer: int, view: Window) -> float:
        """Opacity of a layer that the view reaches beyond, before its soft edges.

        It is 0 until the layer above fills the view. js/viewer/places.js has the same rule.

        Args:
            layer: 1 or more.
            view: What is seen, in the layer's own pixels.
        """
        x, y = self.x.enlarged, self.y.enlarged
        above = layer - 1
        factor = x[layer] * y[layer] / (x[above] * y[above])
        if above == 0:
            # From the start of the zoom on, whatever part of the source it shows.
            factor *= self.start.width * self.start.height / (self.end.width * self.end.height)
        beyond = view.width * view.height / (self.end.width * self.end.height)
        if factor < 1 + SCALE_TOLERANCE:
            return 1.0
        return smooth(min(max((1 - log(beyond) / log(factor)) / FADE_SHARE, 0.0), 1.0))

    def _lay(self, image: Tensor, layer: int, view: Window, weight: float) -> None:
        """Lay a layer into the picture of the view, with soft edges where they are seen."""
        height, width = self.chain.frames[layer].shape[-2:]
        x = _ScreenSpan(view.x, view.width, width, self.width)
        y = _ScreenSpan(view.y, view.height, height, self.height)
        if x.last <= x.first or y.last <= y.first:
            return
        fx, fy = view.width / self.width, view.height / self.height
        tall, wide = y.last - y.first, x.last - x.first
        box = Window(view.x + x.first * fx, view.y + y.first * fy, wide * fx, tall * fy)
        detail = self._resample(layer, box, tall, wide).clamp(0, 1)
        alpha = (weight * y.weights[:, None] * x.weights).to(image)
        image[..., y.first : y.last, x.first : x.last].lerp_(detail, alpha)

    def _resample(self, layer: int, view: Window, height: int, width: int) -> Tensor:
        image = self.chain.frames[layer]
        if layer == 0:
            level = 0
            while 2 ** (level + 1) * REDUCING_GAP <= min(view.width / width, view.height / height):
                level += 1
            while len(self.halves) <= level:
                self.halves.append(F.avg_pool2d(self.halves[-1], 2, ceil_mode=True))
            image = self.halves[level]
            view = Window(*(value / 2**level for value in view))
        rows = _SourceSpan(view.y, view.height, image.shape[-2], height)
        columns = _SourceSpan(view.x, view.width, image.shape[-1], width)
        image = image[..., rows.pixels, columns.pixels]
        if any((*rows.beyond, *columns.beyond)):
            image = F.pad(image, (*columns.beyond, *rows.beyond), "replicate")
        box = Window(columns.start, rows.start, columns.length, rows.length)
        return resize(image, height, width, box=box)


def _find_end_views(chain: ZoomChain, height: int, width: int) -> tuple[Window, Window]:
    """The first view in the source's pixels, and the last in the deepest frame's."""
    deepest = len(chain.frames) - 1
    rows, columns = chain.frames[deepest].shape[-2:]
    region, target = chain.window_in(deepest, 0), chain.target
    source_height, source_width = chain.frames[0].shape[-2:]
    x = (target.x * source_width - region.x) / region.width * columns
    y = (target.y * source_height - region.y) / region.height * rows
    end = _fit_window(columns, rows, width, height, x, y)
    # A frame's pixels may be a little wider or taller than the source's.
    first = chain.windows[0]
    wide, tall = width * first.width / columns, height * first.height / rows
    x = region.x + (end.x + end.width / 2) * region.width / columns
    y = region.y + (end.y + end.height / 2) * region.height / rows
    return _fit_window(source_width, source_height, wide, tall, x, y), end


def _fit_window(width: int, height: int, across: float, down: float, x: float, y: float) -> Window:
    """The largest window of a picture with sides as ``across`` to ``down``, around a point."""
    unit = min(width / across, height / down)
    across, down = across * unit, down * unit
    left = min(max(x - across / 2, 0.0), width - across)
    top = min(max(y - down / 2, 0.0), height - down)
    return Window(left, top, across, down)


class _SourceSpan:
    """The pixels of an axis that a resampled span is made of, and where it lies among them."""

    def __init__(self, start: float, length: float, side: int, size: int):
        """Of a span (start, length) of ``side`` pixels that becomes ``size`` of them."""
        end = start + length
        start = 0.0 if abs(start) < EDGE_TOLERANCE else start
        end = float(side) if abs(side - end) < EDGE_TOLERANCE else end
        margin = (
            ceil(MARGIN_PIXELS * max(1.0, (end - start) / size)) if (start, end) != (0, side) else 0
        )
        # A pixel of the view that lies in a layer in part needs a little more than there is.
        self.beyond = max(0, ceil(-start)), max(0, ceil(end - side))
        first, last = max(floor(start) - margin, 0), min(ceil(end) + margin, side)
        self.pixels = slice(first, last)
        self.start = start - first + self.beyond[0]
        self.length = end - start


class _ScreenSpan:
    """Where a layer's axis lies on the screen, in its pixels."""

    def __init__(self, start: float, length: float, side: int, size: int):
        """Of a layer of ``side`` pixels, in a view (start, length) of it ``size`` pixels large."""
        unit = size / length
        left, right = -start * unit, (side - start) * unit
        self.first = max(floor(left + EDGE_TOLERANCE), 0)
        self.last = min(ceil(right - EDGE_TOLERANCE), size)
        # An edge is as soft as it is far from the view's edge, so nothing jumps when it gets there.
        most = MAX_FEATHER_SHARE * (right - left)
        pixel = torch.arange(self.first, self.last, dtype=torch.float64)
        begin = (pixel + 1 - left) / max(min(most, left), 1.0)
        end = (right - pixel) / max(min(most, size - right), 1.0)
        self.weights = smooth(torch.minimum(begin, end).clamp(0, 1))


def smooth(t: Value) -> Value:
    """From 0 to 1, level at both ends."""
    return t * t * (3 - 2 * t)
