"""Where a chain looks: windows of a picture, the first frame, the target carried along.

Everything here is arithmetic on sizes; no pixel is touched. Coordinates are continuous: pixel k
of a row covers [k, k + 1), so a fraction c of a frame W pixels wide is the point c * W.
"""

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


def place_window(height: int, width: int, scale: float, target: Target) -> Window:
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
    x, w = _place_span(width, scale, target.x, "center_x")
    y, h = _place_span(height, scale, target.y, "center_y")
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
        window = place_window(height, width, scale, target)
        plan.append(ZoomStep(window, target))
        target = carry_target(height, width, window, target)
    return plan


def place_first_frame(
    height: int, width: int, size: int, frame: FrameMode, target: Target
) -> FirstFrame:
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
    x, _ = _place_span(w, w / crop_w, target.x, "center_x")
    y, _ = _place_span(h, h / crop_h, target.y, "center_y")
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
        ValueError: As ``place_first_frame`` and ``place_window``.
    """
    first = place_first_frame(height, width, size, frame, target)
    plan = plan_steps(first.height, first.width, scale, steps, first.target)
    return ZoomPlan(scale, target, first, plan, seed)


def _place_span(side: int, scale: float, center: float, name: str) -> tuple[int, int]:
    if side < 1:
        raise ValueError(f"the image must hold at least one pixel, got a side of {side}")
    if not 0 <= center <= 1:
        raise ValueError(f"{name} must be a fraction of the image, 0 to 1, got {center}")
    length = max(1, floor(side / scale + EDGE_TOLERANCE))
    # The nearest place, and the left of two: upstream's floor for a centred window, and a window
    # of one pixel still holds its target.
    start = ceil(center * side - length / 2 - 0.5 - EDGE_TOLERANCE)
    return min(max(start, 0), side - length), length
