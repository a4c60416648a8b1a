"""A chain in figures: each step beside what it was made from, and beside the truth where it is known."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isnan, nan

from torch import Tensor

from .chain import ZoomChain
from .consistency import MOST_DECIBELS, agreement
from .geometry import Window
from .metrics import SIDE, color_drift, psnr, sharpness, ssim
from .resample import SUPPORT, crop, resize
from .strip import factor_label

LEAST = 2
"""Whole pixels of the source along a side, in a frame that is held to them."""

SNAP = 1e-6
"""Pixels by which rounding may move a window's edge."""


@dataclass(frozen=True)
class Figures:
    """Of one frame of a chain. What cannot be measured is NaN."""

    layer: int
    """1 is the first frame x_0."""
    input: float
    """Agreement with the window that it was made from, in dB."""
    source: float
    """Agreement with the source photograph, in dB."""
    psnr: float
    """Against the ground truth, in dB."""
    ssim: float
    """Against the ground truth."""
    sharpness: float
    """Variance of the Laplacian, in squared levels of 255."""
    drift: float
    """Levels of 255 by which the mean colour has moved from the input's, worst channel."""


def measure(chain: ZoomChain, ground_truth: Tensor | None = None) -> Iterator[Figures]:
    """The figures of x_0 (no more than it can have) and of each step, one at a time.

    Args:
        chain: frames in [0, 1].
        ground_truth: (1, 3, H, W) in [0, 1], the whole picture that the chain's source shows, as
            large or larger; on the chain's device. A frame is held to it where it is as fine.

    Raises:
        ValueError: If ``ground_truth`` has another shape than the source, or fewer pixels.
    """
    if ground_truth is not None:
        _check(chain, ground_truth)
    for layer in range(1, len(chain.frames)):
        frame, made_from = chain.frames[layer], None
        if layer > 1:
            made_from = crop(chain.frames[layer - 1], chain.windows[layer - 1])
        truth = None if ground_truth is None else true_view(chain, layer, ground_truth)
        short = min(frame.shape[-2:])
        yield Figures(
            layer,
            nan if made_from is None else agreement(frame, made_from),
            nan if made_from is None else source_agreement(chain, layer),
            nan if truth is None else psnr(frame, truth),
            nan if truth is None or short < SIDE else ssim(frame, truth),
            nan if short < 3 else sharpness(frame),
            nan if made_from is None else color_drift(frame, made_from),
        )


def source_agreement(chain: ZoomChain, layer: int) -> float:
    """How well a frame, made small again, repeats the source's pixels that lie in its view: in dB.

    Only whole pixels count, so that the source need not be resampled; where it is finer than the
    frame, it is made small instead. NaN where fewer than two by two lie in the view.
    """
    source, frame = chain.frames[0], chain.frames[layer]
    height, width = frame.shape[-2:]
    x, y, across, down = chain.window_in(layer, 0)
    if across >= width and down >= height:
        return psnr(_view(source, Window(x, y, across, down), height, width), frame)
    left, top = ceil(x - SNAP), ceil(y - SNAP)
    right, bottom = floor(x + across + SNAP), floor(y + down + SNAP)
    if right - left < LEAST or bottom - top < LEAST:
        return nan
    fx, fy = width / across, height / down
    box = Window((left - x) * fx, (top - y) * fy, (right - left) * fx, (bottom - top) * fy)
    small = _view(frame, box, bottom - top, right - left)
    return psnr(small, source[..., top:bottom, left:right])


def true_view(chain: ZoomChain, layer: int, ground_truth: Tensor) -> Tensor | None:
    """What the ground truth shows of a layer's view, at the layer's size; None if it is coarser.

    Args:
        chain: frames in [0, 1].
        layer: 1 is x_0.
        ground_truth: as of ``measure``.

    Returns:
        (1, 3, h, w) float32 in [0, 1].
    """
    height, width = chain.frames[layer].shape[-2:]
    x, y, across, down = chain.window_in(layer, 0)
    source_height, source_width = chain.frames[0].shape[-2:]
    full_height, full_width = ground_truth.shape[-2:]
    # A source that is a rounded fraction of the ground truth may want a part of a pixel more.
    if across * (full_width + 1) < width * source_width - SNAP:
        return None
    if down * (full_height + 1) < height * source_height - SNAP:
        return None
    fx, fy = full_width / source_width, full_height / source_height
    return _view(ground_truth, Window(x * fx, y * fy, across * fx, down * fy), height, width)


def reach(chain: ZoomChain, ground_truth: Tensor) -> float:
    """How far the ground truth can enlarge the first frame, and still not be enlarged itself."""
    _, _, across, down = chain.window_in(1, 0)
    height, width = chain.frames[1].shape[-2:]
    (full_height, full_width), (rows, columns) = (
        image.shape[-2:] for image in (ground_truth, chain.frames[0])
    )
    return min(full_width / columns * across / width, full_height / rows * down / height)


def report(chain: ZoomChain, figures: Sequence[Figures], ground_truth: Tensor | None = None) -> str:
    """The figures as a Markdown table whose columns are aligned in plain text too, and notes."""
    columns = [
        ("zoom", [factor_label(chain, f.layer) for f in figures]),
        ("input dB", [_decibels(f.input, 1) for f in figures]),
        ("source dB", [_decibels(f.source, 1) for f in figures]),
        ("PSNR dB", [_decibels(f.psnr, 2) for f in figures]),
        ("SSIM", [_number(f.ssim, 3) for f in figures]),
        ("sharpness", [_number(f.sharpness, 0) for f in figures]),
        ("drift", [_number(f.drift, 2) for f in figures]),
    ]
    if ground_truth is None:
        del columns[3:5]
        note = "No ground truth is connected: PSNR and SSIM are not measured."
    else:
        note = f"The ground truth reaches {reach(chain, ground_truth):.3g}x"
        hidden = any(isnan(f.psnr) for f in figures)
        note += ": beyond it PSNR and SSIM cannot be measured." if hidden else "."
    widths = [max(len(cell) for cell in (name, *cells)) for name, cells in columns]
    lines = [[name for name, _ in columns], ["-" * (width - 1) + ":" for width in widths]]
    lines += [list(row) for row in zip(*(cells for _, cells in columns), strict=True)]
    table = [
        "| " + " | ".join(map(str.rjust, line, widths)) + " |" for line in lines
    ]  # the colons of the second line align the columns to the right in Markdown
    return "\n".join([*table, "", note])


def _decibels(value: float, digits: int) -> str:
    return f">{MOST_DECIBELS}" if value >= MOST_DECIBELS else _number(value, digits)


def _number(value: float, digits: int) -> str:
    return "-" if isnan(value) else f"{value:.{digits}f}"


def _view(image: Tensor, box: Window, height: int, width: int) -> Tensor:
    """A region of a picture resized, with no more than the rows around it that weigh in."""
    margin = ceil(SUPPORT["bicubic"] * max(box.height / height, 1.0)) + 1
    rows, columns = image.shape[-2:]
    top = max(floor(box.y) - margin, 0)
    x, y = max(box.x, 0.0), max(box.y, 0.0)
    box = Window(x, y - top, min(box.width, columns - x), min(box.height, rows - y))
    part = image[..., top : top + ceil(box.y + box.height) + margin, :]
    return resize(part, height, width, box=box).clamp(0, 1)


def _check(chain: ZoomChain, ground_truth: Tensor) -> None:
    """A source is the ground truth made smaller by one factor, its sides rounded either way."""
    sides = list(zip(ground_truth.shape[-2:], chain.frames[0].shape[-2:], strict=True))
    least = max(1.0, *(full / (side + 1) for full, side in sides))
    most = min(full / max(side - 1, SNAP) for full, side in sides)
    if least >= most or any(full < side for full, side in sides):
        (full_height, height), (full_width, width) = sides
        raise ValueError(
            f"the ground truth is {full_width} x {full_height} pixels and the chain's source "
            f"{width} x {height}: it must show the same whole picture in the same shape, and be no "
            "smaller. Connect the picture that the source was made small from; where it was cropped "
            "for that, crop the ground truth alike"
        )
