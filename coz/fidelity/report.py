"""Measure a chain: compare each step with its input, the source and, if known, the ground truth."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, isnan, nan

from torch import Tensor

from ..chain.real_pixels import (
    MIN_COMPARED_SIDE_PIXELS,
    TOO_FEW_REAL_PIXELS,
    count_real_pixels,
    describe_real_pixels,
    is_comparable,
)
from ..chain.zoom_chain import ZoomChain
from ..geometry import EDGE_TOLERANCE, Window
from ..render.strip import write_factor_label
from ..resample import crop, resize_region
from .back_projection import (
    AGREEMENT_WORDS,
    MAX_SHOWN_DECIBELS,
    describe_agreement,
    start_measuring_agreement,
)
from .metrics import (
    SSIM_WINDOW_PIXELS,
    start_measuring_color_drift,
    start_measuring_psnr,
    start_measuring_sharpness,
    start_measuring_ssim,
)
from .pending_figure import PendingFigure, read_figures

REAL_SHARE_WORDS = (
    (1, "nothing in it had to be invented"),
    (1 / 10**2, "its shapes are real, its fine detail is invented"),
    (1 / 40**2, "only its coarsest shapes are real, all detail is invented"),
    (0, "all but a blur of colors is invented"),
)
"""Minimum share of real pixels for each description: the shares of frames enlarged 1x, 10x and 40x."""

MIN_REPEATS_DECIBELS, MIN_CLOSE_DECIBELS = AGREEMENT_WORDS[0][0], AGREEMENT_WORDS[1][0]

COLOR_DRIFT_WORDS = ((2, "colors stay true"), (6, "colors move a little"))
"""Maximum drift, in levels of 255, of each description of the colors. For a middle gray 6 levels are 2.3
in lightness (CIELAB), the least that most people notice side by side."""

BLURRED_SHARPNESS_SHARE = 1 / 50
"""A frame is called blurred if its sharpness is below this share of the first frame's."""


@dataclass(frozen=True)
class Figures:
    """The figures of one frame of a chain. What cannot be measured is NaN."""

    layer: int
    """1 is the first frame x_0."""
    input_agreement: float = nan
    """Agreement with the crop that the frame was made from, in dB."""
    source_agreement: float = nan
    """Agreement with the source, in dB."""
    psnr: float = nan
    """PSNR with the ground truth, in dB."""
    ssim: float = nan
    """SSIM with the ground truth."""
    sharpness: float = nan
    """Variance of the Laplacian, in squared levels of 255."""
    drift: float = nan
    """How far the mean color has moved from the input's in the worst channel, in levels of 255."""


def measure_chain(chain: ZoomChain, ground_truth: Tensor | None = None) -> Iterator[Figures]:
    """Yield the figures of x_0, which has no input, and of each step.

    Args:
        chain: Its frames are in [0, 1].
        ground_truth: (1, 3, H, W) in [0, 1], on the chain's device: the same image as the
            chain's source, at the same or a higher resolution. Finer frames are not compared with it.

    Raises:
        ValueError: If ``ground_truth`` has other proportions than the source, or fewer pixels.
    """
    if ground_truth is not None:
        _require_ground_truth(chain, ground_truth)
    for layer in range(1, len(chain.frames)):
        frame = chain.frames[layer]
        pending: dict[str, PendingFigure] = {}
        if layer > 1:
            made_from = crop(chain.frames[layer - 1], chain.windows[layer - 1])
            pending["input_agreement"] = start_measuring_agreement(frame, made_from)
            pending["drift"] = start_measuring_color_drift(frame, made_from)
            if is_comparable(count_real_pixels(chain, layer)):
                pending["source_agreement"] = start_measuring_source_agreement(chain, layer)
        truth = None if ground_truth is None else cut_ground_truth(chain, layer, ground_truth)
        if truth is not None:
            pending["psnr"] = start_measuring_psnr(frame, truth)
            if min(frame.shape[-2:]) >= SSIM_WINDOW_PIXELS:
                pending["ssim"] = start_measuring_ssim(frame, truth)
        if min(frame.shape[-2:]) >= 3:
            pending["sharpness"] = start_measuring_sharpness(frame)
        values = read_figures(*pending.values())
        yield Figures(layer, **dict(zip(pending, values, strict=True)))


def start_measuring_source_agreement(chain: ZoomChain, layer: int) -> PendingFigure:
    """Start to compare a frame with the source's pixels in its window; the figure is a PSNR in dB.

    The frame is downscaled. Only whole source pixels count, so that the source is not resampled. If
    the source is finer than the frame, the source is downscaled instead. The window must hold
    enough pixels (``is_comparable``).
    """
    source, frame = chain.frames[0], chain.frames[layer]
    height, width = frame.shape[-2:]
    x, y, across, down = chain.find_window_in(layer, 0)
    if across >= width and down >= height:
        return start_measuring_psnr(
            resize_region(source, Window(x, y, across, down), height, width), frame
        )
    left, top = ceil(x - EDGE_TOLERANCE), ceil(y - EDGE_TOLERANCE)
    right, bottom = floor(x + across + EDGE_TOLERANCE), floor(y + down + EDGE_TOLERANCE)
    fx, fy = width / across, height / down
    box = Window((left - x) * fx, (top - y) * fy, (right - left) * fx, (bottom - top) * fy)
    small = resize_region(frame, box, bottom - top, right - left)
    return start_measuring_psnr(small, source[..., top:bottom, left:right])


def cut_ground_truth(chain: ZoomChain, layer: int, ground_truth: Tensor) -> Tensor | None:
    """Cut from the ground truth the region that a layer shows, resized to the layer's size.

    Args:
        chain: Its frames are in [0, 1].
        layer: 1 is x_0.
        ground_truth: As in ``measure_chain``.

    Returns:
        (1, 3, h, w) float32 in [0, 1]; None if the ground truth is coarser than the layer.
    """
    height, width = chain.frames[layer].shape[-2:]
    x, y, across, down = chain.find_window_in(layer, 0)
    source_height, source_width = chain.frames[0].shape[-2:]
    full_height, full_width = ground_truth.shape[-2:]
    # A source that was made by downscaling the ground truth has rounded sides: a ground truth that is short
    # by up to one pixel still counts as fine enough.
    if across * (full_width + 1) < width * source_width - EDGE_TOLERANCE:
        return None
    if down * (full_height + 1) < height * source_height - EDGE_TOLERANCE:
        return None
    fx, fy = full_width / source_width, full_height / source_height
    return resize_region(
        ground_truth, Window(x * fx, y * fy, across * fx, down * fy), height, width
    )


def compute_max_comparable_magnification(chain: ZoomChain, ground_truth: Tensor) -> float:
    """Compute the largest magnification at which the ground truth is as fine as a frame."""
    _, _, across, down = chain.find_window_in(1, 0)
    height, width = chain.frames[1].shape[-2:]
    (full_height, full_width), (rows, columns) = (
        image.shape[-2:] for image in (ground_truth, chain.frames[0])
    )
    return min(full_width / columns * across / width, full_height / rows * down / height)


def describe_deepest_frame(chain: ZoomChain, deepest: int) -> str:
    """Describe how much of the source the deepest frame shows, and what is invented.

    ``deepest`` is the layer of the deepest frame that is judged; the chain may be longer.
    """
    real = count_real_pixels(chain, deepest)
    count = describe_real_pixels(real)
    if real.share >= 1 or is_comparable(real):
        words = next(words for least, words in REAL_SHARE_WORDS if real.share >= least)
    elif real.width * real.height < 1:
        words = "everything in it is invented"
    else:
        words = "nearly everything in it is invented"
    verb = "is" if real.share >= 1 else "shows"
    return f"The deepest frame ({write_factor_label(chain, deepest)}) {verb} {count}: {words}."


def describe_chain(chain: ZoomChain, figures: Sequence[Figures]) -> str:
    """Describe in two to four short sentences what is good and what is bad in a chain.

    Args:
        chain: Any chain.
        figures: Those of x_0 and each step, from ``measure_chain``.
    """
    first, deepest = figures[0], figures[-1]
    sentences = [describe_deepest_frame(chain, deepest.layer)]
    steps = [f for f in figures[1:] if not isnan(f.input_agreement)]
    if not steps:
        return " ".join([*sentences, "There is no step to judge."])
    worst = min(steps, key=lambda f: f.input_agreement)
    if worst.input_agreement >= MIN_REPEATS_DECIBELS:
        judged = "Every step repeats its input"
    else:
        label = write_factor_label(chain, worst.layer)
        judged = f"The weakest step, to {label}, {describe_agreement(worst.input_agreement)}"
    drift = max(f.drift for f in steps)
    colors = next((w for most, w in COLOR_DRIFT_WORDS if drift <= most), "colors change visibly")
    sentences.append(f"{judged}; {colors} (at most {drift:.1f} of 255 levels in a step).")
    compared = [f for f in steps if not isnan(f.source_agreement)]
    if compared and compared[-1].source_agreement < MIN_CLOSE_DECIBELS:
        label = write_factor_label(chain, compared[-1].layer)
        words = describe_agreement(compared[-1].source_agreement, "the photograph")
        sentences.append(f"At {label} the chain {words}.")
    if deepest.sharpness < first.sharpness * BLURRED_SHARPNESS_SHARE:
        sentences.append(
            f"The deepest frame is blurred: sharpness falls from {first.sharpness:.0f} to "
            f"{deepest.sharpness:.0f}."
        )
    return " ".join(sentences)


def write_report(
    chain: ZoomChain, figures: Sequence[Figures], ground_truth: Tensor | None = None
) -> str:
    """Write what is good and bad, the figures as a Markdown table, and what each column means.

    The columns of the table are also aligned in plain text.
    """
    columns = [
        ("zoom", [write_factor_label(chain, f.layer) for f in figures]),
        ("real pixels", [describe_real_pixels(count_real_pixels(chain, f.layer)) for f in figures]),
        ("its input", [_format_agreement_cell(f.input_agreement) for f in figures]),
        ("the photograph", [_format_source_cell(chain, f) for f in figures]),
        ("PSNR dB", [_format_decibels(f.psnr, 2) for f in figures]),
        ("SSIM", [_format_number(f.ssim, 3) for f in figures]),
        ("sharpness", [_format_number(f.sharpness, 0) for f in figures]),
        ("color drift", [_format_number(f.drift, 2) for f in figures]),
    ]
    legend = [
        "real pixels: how many pixels of the photograph the frame shows. Finer detail is invented.",
        "its input: the step's result, downscaled, compared with what the step enlarged. "
        f'"repeats it" ({MIN_REPEATS_DECIBELS} dB and more) is good, below {MIN_CLOSE_DECIBELS} dB shapes or '
        "colors have changed. From the second step on, the input itself is partly invented, so repeating it "
        "does not mean being true.",
        "the photograph: the same comparison with the photograph's own pixels, where at least "
        f"{MIN_COMPARED_SIDE_PIXELS} x {MIN_COMPARED_SIDE_PIXELS} of them are in view. Finer detail is not "
        "judged.",
        "PSNR and SSIM: the frame compared with the ground truth. Higher is closer; equal images have a PSNR "
        f"over {MAX_SHOWN_DECIBELS} dB and an SSIM of 1.",
        "sharpness: the amount of fine structure, whether real, invented or noise. Near 0 is blur. "
        "Compare it along the chain.",
        "color drift: how far the step moved the mean color, in levels of 255. Up to "
        f"{COLOR_DRIFT_WORDS[0][0]} it is invisible, above {COLOR_DRIFT_WORDS[1][0]} visible.",
    ]
    if ground_truth is None:
        del columns[4:6], legend[3]
        note = "No ground truth is connected: PSNR and SSIM are not measured."
    else:
        limit = compute_max_comparable_magnification(chain, ground_truth)
        note = f"The ground truth is fine enough for frames up to {limit:.3g}x"
        hidden = any(isnan(f.psnr) for f in figures)
        note += ": beyond that PSNR and SSIM cannot be measured." if hidden else "."
    widths = [max(len(cell) for cell in (name, *cells)) for name, cells in columns]
    lines = [[name for name, _ in columns], ["-" * (width - 1) + ":" for width in widths]]
    lines += [list(row) for row in zip(*(cells for _, cells in columns), strict=True)]
    table = [
        "| " + " | ".join(map(str.rjust, line, widths)) + " |" for line in lines
    ]  # the colons of the second line align the columns to the right in Markdown
    return "\n\n".join([describe_chain(chain, figures), "\n".join(table), *legend, note])


def _format_agreement_cell(value: float) -> str:
    return "-" if isnan(value) else describe_agreement(value, "it")


def _format_source_cell(chain: ZoomChain, figures: Figures) -> str:
    if figures.layer > 1 and not is_comparable(count_real_pixels(chain, figures.layer)):
        return TOO_FEW_REAL_PIXELS
    return _format_agreement_cell(figures.source_agreement)


def _format_decibels(value: float, digits: int) -> str:
    return (
        f">{MAX_SHOWN_DECIBELS}" if value >= MAX_SHOWN_DECIBELS else _format_number(value, digits)
    )


def _format_number(value: float, digits: int) -> str:
    return "-" if isnan(value) else f"{value:.{digits}f}"


def _require_ground_truth(chain: ZoomChain, ground_truth: Tensor) -> None:
    """Require that the source is the ground truth downscaled by one factor, with rounded sides."""
    sides = list(zip(ground_truth.shape[-2:], chain.frames[0].shape[-2:], strict=True))
    low = max(1.0, *(full / (side + 1) for full, side in sides))
    high = min(full / max(side - 1, EDGE_TOLERANCE) for full, side in sides)
    if low >= high or any(full < side for full, side in sides):
        (full_height, height), (full_width, width) = sides
        raise ValueError(
            f"the ground truth is {full_width} x {full_height} pixels and the chain's source "
            f"{width} x {height}: the ground truth must show the same whole image with the same "
            "proportions, and be no smaller. Connect the image that the source was downscaled from; if "
            "the source was cropped, crop the ground truth in the same way"
        )
