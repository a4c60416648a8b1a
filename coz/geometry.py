"""Place the first frame and the windows of a chain, and carry the target from frame to frame.

Everything here is arithmetic on sizes and uses no pixels. Coordinates are continuous: pixel k of a row
covers [k, k + 1), so a fraction c of a frame W pixels wide is the point c * W.
"""

from math import ceil, floor
from typing import Literal, NamedTuple, get_args

FrameMode = Literal["native pixels", "whole picture square", "whole picture"]

FRAME_MODES: list[FrameMode] = list(get_args(FrameMode))

EDGE_TOLERANCE = 1e-6
"""Pixels by which rounding may move an edge: in floats 805 / 1.61 is 499.999... instead of 500."""


class Window(NamedTuple):
    """A region of an image in its own pixels. It has integers if it is used to crop."""

    x: float
    y: float
    width: float
    height: float


class Target(NamedTuple):
    """The point that a chain zooms into, as fractions (0..1) of an image."""

    x: float
    y: float


CENTER = Target(0.5, 0.5)


class FirstFrame(NamedTuple):
    """How x_0 is cut from the source: ``window``, resized to (height, width)."""

    height: int
    width: int
    window: Window
    """In pixels of the source. For "native pixels" it has integers and the size of x_0."""
    target: Target
    """The target as fractions of x_0."""


class ZoomStep(NamedTuple):
    """One step of a plan: the window that is cut from the frame, and the target in this frame."""

    window: Window
    target: Target
    """The target as fractions of the frame that the window is cut from."""


class ZoomPlan(NamedTuple):
    """The first frame and all windows of a chain."""

    scale: float
    """Requested scale of each step."""
    target: Target
    """The target as fractions of the source."""
    first: FirstFrame
    steps: list[ZoomStep]
    seed: int = 0
    """Seed from which each step derives its own."""


def place_window(height: int, width: int, scale: float, target: Target) -> Window:
    """Place the window that fills a (height, width) frame when it is enlarged ``scale`` times.

    It is centered on the target and clamped to the frame. Each side of the window is
    floor(side of the frame / scale), at least one pixel; the exact factor along x is therefore
    ``width / window.width``.

    Raises:
        ValueError: If a side is below 1 pixel, the scale below 1, or the target outside 0..1.

    Source: Chain-of-Zoom inference_coz.py, crop of each recursion (w // rscale).
    Deviation: any target (upstream: the center). Upstream's float ``//`` can lose a pixel (1600 // 3.2
        is 499); here a quotient just below a whole number counts as that number.
    """
    if not scale >= 1:
        raise ValueError(f"scale must be at least 1, got {scale}")
    x, w = _place_span(width, scale, target.x, "center_x")
    y, h = _place_span(height, scale, target.y, "center_y")
    return Window(x, y, w, h)


def carry_target(height: int, width: int, window: Window, target: Target) -> Target:
    """Convert a target of a (height, width) frame to fractions of the next frame, cut at ``window``."""
    x = (target.x * width - window.x) / window.width
    y = (target.y * height - window.y) / window.height
    # Rounding may move a target on the edge of a window outside it.
    return Target(min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0))


def plan_steps(height: int, width: int, scale: float, steps: int, target: Target) -> list[ZoomStep]:
    """Plan the windows of ``steps`` steps, each in pixels of the frame before it.

    Every frame has the same (height, width). If clamping moved a window, the next one is centered on
    the target's position in the new frame, not on the frame's center.
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
    """Place x_0 in a (height, width) source.

    Args:
        height: Height of the source, in pixels.
        width: Width of the source, in pixels.
        size: Side of x_0 in pixels ("whole picture": its short side).
        frame: "native pixels" crops without resizing, so every pixel of x_0 is one of the
            source; along an axis on which the source is shorter than ``size``, x_0 takes all of it.
            "whole picture square" resizes the short side to ``size`` and crops a square. "whole
            picture" resizes the whole source, in its proportions.
        target: Fractions of the source.

    Raises:
        ValueError: If the source is empty, ``size`` below 1, or the target outside 0..1.

    Source: Chain-of-Zoom utils, resize_and_center_crop ("whole picture square").
    Deviation: the short side is exactly ``size`` (upstream's int() may lose a pixel, and its crop
        then has a black edge); the crop follows the target (upstream: the center).
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
    """Plan a chain for a (height, width) source.

    ``target``, ``size`` and ``frame`` are as in ``place_first_frame``; ``scale`` and ``steps`` are as in
    ``plan_steps``. The node Chain Loop has inputs of the same names.

    Raises:
        ValueError: As ``place_first_frame`` and ``place_window``.
    """
    first = place_first_frame(height, width, size, frame, target)
    plan = plan_steps(first.height, first.width, scale, steps, first.target)
    return ZoomPlan(scale, target, first, plan, seed)


def _place_span(side: int, scale: float, center: float, name: str) -> tuple[int, int]:
    """Place a window along one axis; return its start and its length."""
    if side < 1:
        raise ValueError(f"the image must hold at least one pixel, got a side of {side}")
    if not 0 <= center <= 1:
        raise ValueError(f"{name} must be a fraction of the image, 0 to 1, got {center}")
    length = max(1, floor(side / scale + EDGE_TOLERANCE))
    # Round to the nearest pixel, halves down: a centered window then starts where the paper's code
    # (which uses floor) puts it, and a window of one pixel contains its target.
    start = ceil(center * side - length / 2 - 0.5 - EDGE_TOLERANCE)
    return min(max(start, 0), side - length), length
