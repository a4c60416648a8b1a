"""Render the frames of a continuous zoom from the whole source into a chain's deepest frame."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from math import ceil, exp, floor, inf, log
from threading import Lock
from typing import Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..chain.zoom_chain import ZoomChain
from ..geometry import EDGE_TOLERANCE, Window
from ..resample import resize
from .read_span import ReadSpan
from .threads import map_in_threads

Easing = Literal["none", "smooth"]

EASINGS: list[Easing] = list(get_args(Easing))

Value = TypeVar("Value", float, Tensor)

FADE_SHARE = 1 / 3
"""Share of the zoom between two layers during which the deeper one fades in."""

MAX_FEATHER_SHARE = 0.15
"""Maximum width of a layer's soft edge, as a share of its side."""

REDUCING_GAP = 3
"""The source is halved, as often as possible, before it is downscaled to a frame. At least this many of its
pixels remain for each video pixel. Pillow's Image.resize has the same reducing_gap; with 3 the result is
almost that without halving."""

SCALE_TOLERANCE = 1e-6
"""Two scales count as equal if the factor between them differs from 1 by less than this."""


def plan_zoom_positions(
    seconds: float, hold: float, fps: float, easing: Easing = "none"
) -> list[float]:
    """Plan the position in the zoom, 0 to 1, of each frame of a video.

    Args:
        seconds: Duration of the motion.
        hold: Seconds of rest before and after the motion.
        fps: Frames per second.
        easing: "smooth" starts and ends at rest (3t^2 - 2t^3), "none" moves steadily.

    Returns:
        round((seconds + 2 * hold) * fps) positions, at least two; the first is 0, the last 1.

    Raises:
        ValueError: If a duration is below 0, ``fps`` is not above 0, or one is infinite or NaN.
    """
    if not (0 <= seconds < inf and 0 <= hold < inf and 0 < fps < inf):
        raise ValueError(
            "the zoom (seconds_per_step) and its rests (hold) must be at least 0 seconds and fps "
            f"above 0, and all of them finite, got {seconds:g} s, {hold:g} s and {fps:g}"
        )
    length = seconds + 2 * hold
    count = max(2, round(length * fps))
    clocks = (length * k / (count - 1) - hold for k in range(count))
    times = [min(max(clock / seconds, 0.0), 1.0) if seconds else 1.0 for clock in clocks]
    times[0], times[-1] = 0.0, 1.0
    return [smooth(t) for t in times] if easing == "smooth" else times


class _AxisMotion:
    """The motion of the view along one axis: its span (start, length) in the pixels of any layer.

    In equal times the view shrinks by equal factors, towards a point that is fixed on the screen.
    The point is computed from the deepest layer upwards, which reduces rounding errors at each
    layer. From the source downwards they would grow: after 16 steps a window is too small for the
    precision of the source's coordinates.
    """

    def __init__(
        self,
        sides: Sequence[int],
        windows: Sequence[tuple[float, float]],
        start: tuple[float, float],
        end: tuple[float, float],
    ):
        """Plan the motion from span ``start`` of the source to span ``end`` of the deepest layer."""
        self.factors = [1.0]  # by which each layer enlarges the source
        begin = start[0]
        for side, (x, length) in zip(sides[1:], windows, strict=True):
            self.factors.append(self.factors[-1] * side / length)
            begin = (begin - x) * side / length
        self.length = start[1]
        length = start[1] * self.factors[-1]
        self.shrink = max(0.0, log(length / end[1]))
        # The fixed point: its position on the screen, then in every layer.
        self.anchor = (end[0] - begin) / (length - end[1]) if self.shrink > SCALE_TOLERANCE else 0.0
        self.points = [end[0] + self.anchor * end[1]]
        for side, (x, length) in zip(reversed(sides[1:]), reversed(windows), strict=True):
            self.points.insert(0, x + self.points[0] * length / side)

    def find_span(self, layer: int, t: float) -> tuple[float, float]:
        length = self.length * self.factors[layer] * exp(-self.shrink * t)
        return self.points[layer] - self.anchor * length, length


class ZoomVideo:
    """A chain as one steady zoom, which can be rendered at any position.

    It starts with the largest part of the source that has the video's proportions, and ends with
    the largest such part of the deepest frame. Both contain the target.
    """

    steps: float
    """Length of the zoom from the source to the deepest frame, in steps of the chain's scale."""

    def __init__(self, chain: ZoomChain, height: int, width: int):
        """Plan the zoom without rendering.

        Args:
            chain: Its frames are in [0, 1].
            height: Height of the video, in pixels.
            width: Width of the video, in pixels.

        Raises:
            ValueError: If a side is below 1.
        """
        if height < 1 or width < 1:
            raise ValueError(f"a frame must hold at least one pixel, got {width} x {height}")
        self.chain, self.height, self.width = chain, height, width
        self.start, self.end = _find_end_views(chain, height, width)
        self.x, self.y = (
            _AxisMotion(
                [frame.shape[side] for frame in chain.frames],
                [(window[k], window[k + 2]) for window in chain.windows],
                (self.start[k], self.start[k + 2]),
                (self.end[k], self.end[k + 2]),
            )
            for k, side in ((0, -1), (1, -2))
        )
        self.steps = (self.x.shrink + self.y.shrink) / 2 / log(chain.scale)
        self.source_pyramid = [chain.frames[0]]
        """The source, halved 0, 1, 2, ... times. Levels are made when they are needed."""
        self._lock = Lock()

    def find_view(self, layer: int, t: float) -> Window:
        """Compute the view at position ``t``, in pixels of a layer; it may reach beyond the layer."""
        (x, width), (y, height) = self.x.find_span(layer, t), self.y.find_span(layer, t)
        return Window(x, y, width, height)

    def render_frames(self, positions: Iterable[float], threads: int = 1) -> Iterator[Tensor]:
        """Render the frames at these positions in order. A rest yields the same tensor again.

        With n threads, up to n frames are computed ahead of the one that is yielded. The number of threads
        does not change the values.
        """
        runs = [(t, len([*group])) for t, group in groupby(positions)]
        frames = map_in_threads(self.render_frame, (t for t, _ in runs), threads)
        for frame, (_, count) in zip(frames, runs, strict=True):
            yield from repeat(frame, count)

    def render_frame(self, t: float) -> Tensor:
        """Render the view at position ``t`` (0 to 1) of the zoom.

        Its base is the deepest layer that covers the view. The deeper layers are laid over it: each
        fades in while it is small, and its soft edges vanish when they reach the edge of the view.

        Returns:
            (1, 3, height, width) float32 in [0, 1].
        """
        views = [self.find_view(layer, t) for layer in range(len(self.chain.frames))]
        base = max(
            layer for layer, view in enumerate(views) if layer == 0 or self._covers(layer, view)
        )
        image = self._resample(base, views[base], self.height, self.width).clamp(0, 1)
        for layer in range(base + 1, len(views)):
            opacity = self.compute_opacity(layer, views[layer])
            if opacity == 0:
                break
            self._blend_layer(image, layer, views[layer], opacity)
        return image

    def _covers(self, layer: int, view: Window) -> bool:
        height, width = self.chain.frames[layer].shape[-2:]
        return (
            min(view.x, view.y) > -EDGE_TOLERANCE
            and view.x + view.width < width + EDGE_TOLERANCE
            and view.y + view.height < height + EDGE_TOLERANCE
        )

    def compute_opacity(self, layer: int, view: Window) -> float:
        """Compute the opacity of a layer that does not fill the view, not counting its soft edges.

        It is 0 until the layer before it fills the view. js/viewer/places.js has the same rule.

        Args:
            layer: 1 or more.
            view: The view in the layer's own pixels.
        """
        x, y = self.x.factors, self.y.factors
        above = layer - 1
        area_factor = x[layer] * y[layer] / (x[above] * y[above])
        if above == 0:
            # x_0 fades in from the start of the zoom. The first view covers this many times as many
            # pixels of x_0 as the last view covers of the deepest frame.
            area_factor *= self.start.width * self.start.height / (self.end.width * self.end.height)
        area_ratio = view.width * view.height / (self.end.width * self.end.height)
        if area_factor < 1 + SCALE_TOLERANCE:
            return 1.0
        return smooth(min(max((1 - log(area_ratio) / log(area_factor)) / FADE_SHARE, 0.0), 1.0))

    def _blend_layer(self, image: Tensor, layer: int, view: Window, opacity: float) -> None:
        """Blend a layer into the image of the view, with soft edges inside the view."""
        height, width = self.chain.frames[layer].shape[-2:]
        x = _ScreenSpan(view.x, view.width, width, self.width)
        y = _ScreenSpan(view.y, view.height, height, self.height)
        if x.last <= x.first or y.last <= y.first:
            return
        fx, fy = view.width / self.width, view.height / self.height
        tall, wide = y.last - y.first, x.last - x.first
        box = Window(view.x + x.first * fx, view.y + y.first * fy, wide * fx, tall * fy)
        detail = self._resample(layer, box, tall, wide).clamp(0, 1)
        alpha = (opacity * y.opacities[:, None] * x.opacities).float().to(image)
        image[..., y.first : y.last, x.first : x.last].lerp_(detail, alpha)

    def _resample(self, layer: int, view: Window, height: int, width: int) -> Tensor:
        image = self.chain.frames[layer]
        if layer == 0:
            level = 0
            while 2 ** (level + 1) * REDUCING_GAP <= min(view.width / width, view.height / height):
                level += 1
            with self._lock:
                while len(self.source_pyramid) <= level:
                    half = F.avg_pool2d(self.source_pyramid[-1], 2, ceil_mode=True)
                    self.source_pyramid.append(half)
            image = self.source_pyramid[level]
            view = Window(*(value / 2**level for value in view))
        rows = ReadSpan(view.y, view.height, image.shape[-2], height)
        columns = ReadSpan(view.x, view.width, image.shape[-1], width)
        image = image[..., rows.pixels, columns.pixels]
        if any((*rows.beyond, *columns.beyond)):
            image = F.pad(image, (*columns.beyond, *rows.beyond), "replicate")
        box = Window(columns.start, rows.start, columns.length, rows.length)
        return resize(image, height, width, box=box)


def _find_end_views(chain: ZoomChain, height: int, width: int) -> tuple[Window, Window]:
    """Find the first view in the source's pixels, and the last in the deepest frame's."""
    deepest = len(chain.frames) - 1
    rows, columns = chain.frames[deepest].shape[-2:]
    region, target = chain.find_window_in(deepest, 0), chain.target
    source_height, source_width = chain.frames[0].shape[-2:]
    x = (target.x * source_width - region.x) / region.width * columns
    y = (target.y * source_height - region.y) / region.height * rows
    end = _fit_window(columns, rows, width, height, x, y)
    # A pixel of a frame need not cover a square of the source, so the video's proportions are converted to
    # the source's pixels.
    first = chain.windows[0]
    wide, tall = width * first.width / columns, height * first.height / rows
    x = region.x + (end.x + end.width / 2) * region.width / columns
    y = region.y + (end.y + end.height / 2) * region.height / rows
    return _fit_window(source_width, source_height, wide, tall, x, y), end


def _fit_window(width: int, height: int, across: float, down: float, x: float, y: float) -> Window:
    """Find the largest window of an image with proportions ``across`` to ``down``, around a point."""
    unit = min(width / across, height / down)
    across, down = across * unit, down * unit
    left = min(max(x - across / 2, 0.0), width - across)
    top = min(max(y - down / 2, 0.0), height - down)
    return Window(left, top, across, down)


class _ScreenSpan:
    """The position of a layer's axis on the screen, in screen pixels, and its opacity there."""

    def __init__(self, start: float, length: float, side: int, size: int):
        """Place a layer of ``side`` pixels so that its span (start, length) fills ``size`` pixels."""
        unit = size / length
        left, right = -start * unit, (side - start) * unit
        self.first = max(floor(left + EDGE_TOLERANCE), 0)
        self.last = min(ceil(right - EDGE_TOLERANCE), size)
        # The soft edge shrinks as it nears the view's edge, so that nothing jumps there.
        feather = MAX_FEATHER_SHARE * (right - left)
        pixel = torch.arange(self.first, self.last, dtype=torch.float64)
        begin = (pixel + 1 - left) / max(min(feather, left), 1.0)
        end = (right - pixel) / max(min(feather, size - right), 1.0)
        self.opacities = smooth(torch.minimum(begin, end).clamp(0, 1))


def smooth(t: Value) -> Value:
    """Ease from 0 to 1 with slope 0 at both ends (smoothstep)."""
    return t * t * (3 - 2 * t)
