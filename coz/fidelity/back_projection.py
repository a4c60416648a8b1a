"""Compare a super-resolved image with the image that was enlarged, and correct it to agree with that."""

from math import ceil

import torch
from torch import Tensor

from ..resample import resize
from .banded_resize import (
    AxisMatrices,
    Block,
    Kernel,
    group_planes,
    make_resize_matrices,
    multiply_both_axes,
    resize_banded,
)
from .metrics import start_measuring_psnr
from .pending_figure import PendingFigure, read_figures

OVERSHOOT_FACTOR = 1.9
"""Relative step size of an iteration: 1 removes the error, 2 flips its sign. A value slightly below 2 needs
the fewest iterations."""

MAX_CG_ITERATIONS = 100
"""Maximum conjugate-gradient iterations. At scale >= 1.5 each cuts the error to about a third, so ten
suffice; near 1x more are needed."""

CG_TOLERANCE = 1e-6
"""RMS error at which the conjugate-gradient iterations stop, close to float32 precision."""

ITERATIONS_BETWEEN_READS = 8
"""On a GPU the error is checked only every so many iterations, because reading it waits for the GPU. On
the CPU it is checked in each iteration."""

AGREEMENT_WORDS = ((40, "repeats"), (30, "is close to"), (20, "departs from"))
"""Minimum dB of each description of a step. 40 dB is an RMS error of 2.6 levels of 255, which is hardly
visible; 30 dB is 8 levels, visible next to the input; 20 dB is 26 levels, visible at once.
``js/viewer/caption.js`` has the same."""

MAX_SHOWN_DECIBELS = 99
"""Higher values are shown as "over 99 dB": an RMS error of 1e-5 is close to float32 rounding."""


def measure_agreement(sr: Tensor, lq: Tensor, kernel: Kernel = "bicubic") -> float:
    """Compute the agreement: the PSNR in dB of a downscaled result with the image that was enlarged.

    Args:
        sr: The result, (B, C, H, W), any float dtype, values in [0, 1].
        lq: The image that was enlarged, (B or 1, C, h, w), no larger than ``sr``.
        kernel: Antialiased filter for downscaling: "bicubic" as in Pillow, or "area", the mean over
            the area of each output pixel.

    Returns:
        As ``measure_psnr``: infinite for equal images, NaN if a value is NaN.

    Raises:
        ValueError: If ``lq`` is larger than ``sr`` along an axis, the numbers of channels or of
            images do not match, or ``kernel`` is unknown.
    """
    return read_figures(start_measuring_agreement(sr, lq, kernel))[0]


def start_measuring_agreement(sr: Tensor, lq: Tensor, kernel: Kernel = "bicubic") -> PendingFigure:
    """Start to compute ``measure_agreement``; ``read_figures`` reads the result from the device."""
    _require_source(sr, lq)
    height, width = lq.shape[-2:]
    return start_measuring_psnr(
        resize_banded(sr, height, width, kernel), lq.expand(len(sr), -1, -1, -1)
    )


def format_decibels(agreement: float) -> str:
    """Format an agreement for display; from ``MAX_SHOWN_DECIBELS`` on as "over 99 dB"."""
    return (
        f"{agreement:.1f} dB" if agreement < MAX_SHOWN_DECIBELS else f"over {MAX_SHOWN_DECIBELS} dB"
    )


def describe_agreement(agreement: float, compared: str = "its input") -> str:
    """Describe in words how well an image repeats the compared one, with the dB in brackets."""
    verb = next((verb for least, verb in AGREEMENT_WORDS if agreement >= least), "contradicts")
    return f"{verb} {compared} ({format_decibels(agreement)})"


def back_project(
    sr: Tensor,
    lq: Tensor,
    strength: float = 1.0,
    iterations: int = 10,
    kernel: Kernel = "bicubic",
    out: Tensor | None = None,
) -> Tensor:
    """Change ``sr`` slightly, so that it equals ``lq`` when it is downscaled.

    If D downscales an image, and D' is its adjoint, D' (D D')^-1 (lq - D sr) is the smallest such change,
    but it rings at edges that differ from those in ``lq``. Therefore each iteration takes a step towards
    ``lq``, then clamps every pixel to the range of ``sr`` and ``lq`` around it. The last iteration adds the
    smallest change, without clamping, so that no error is left.

    Images are corrected one by one, large ones plane by plane (``group_planes``), to save memory.

    Args:
        sr: The result, (B, C, H, W), any float dtype, values in [0, 1].
        lq: The image that was enlarged, (B or 1, C, h, w), no larger than ``sr``.
        strength: Share of the change that is applied: 0 changes nothing, 1 leaves no error.
        iterations: More iterations reduce ringing at edges. 1 applies the smallest change.
        kernel: As in ``measure_agreement``.
        out: The result is written here, if given: float32, of the shape of ``sr``, contiguous.

    Returns:
        (B, C, H, W) float32, not clamped.

    Raises:
        ValueError: As ``measure_agreement``, or if ``strength`` is not in 0..1 or ``iterations`` is below 1.
    """
    _require_source(sr, lq)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be 0 to 1, got {strength:g}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if out is None:
        out = torch.empty(sr.shape, device=sr.device)
    out.copy_(sr)
    if strength == 0:
        return out
    lq = lq.float()
    height, width = lq.shape[-2:]
    matrices = make_resize_matrices(sr, height, width, kernel)
    groups = group_planes(sr.shape[1], sr.shape[-2], sr.shape[-1])
    for k in range(len(sr)):
        x, lq_image = out[k : k + 1], lq[k % len(lq)][None]
        for group in groups if iterations > 1 else []:
            planes, lq_planes = x[:, group], lq_image[:, group]
            low, high = _find_local_range(planes, lq_planes)
            for _ in range(iterations - 1):
                change = _find_change_in_lq_size(matrices, planes, lq_planes, 1)
                _add_enlarged(matrices, planes, change, OVERSHOOT_FACTOR)
                planes.clamp_(low, high)
            del low, high
        change = _find_change_in_lq_size(matrices, x, lq_image, MAX_CG_ITERATIONS)
        for group in groups:
            planes = x[:, group]
            _add_enlarged(matrices, planes, change[:, group], 1.0)
            if strength < 1:
                torch.lerp(sr[k : k + 1, group].float(), planes, strength, out=planes)
    return out


def _find_change_in_lq_size(
    matrices: tuple[AxisMatrices, AxisMatrices], x: Tensor, lq: Tensor, cg_iterations: int
) -> Tensor:
    """Find (D D')^-1 (lq - D x), in the size of ``lq``; D' enlarges it to the change of ``x``."""
    rows, columns = matrices
    error = multiply_both_axes(rows.down, columns.down, x)
    torch.sub(lq, error, out=error)
    return _solve_by_conjugate_gradients(rows.gram, columns.gram, error, cg_iterations)


def _add_enlarged(
    matrices: tuple[AxisMatrices, AxisMatrices], x: Tensor, change: Tensor, factor: float
) -> None:
    """Add ``factor`` D' ``change`` to ``x``."""
    rows, columns = matrices
    x.add_(multiply_both_axes(rows.back, columns.back, change), alpha=factor)


def _find_local_range(sr: Tensor, lq: Tensor) -> tuple[Tensor, Tensor]:
    """Find the lowest and highest value of ``sr`` around each of its pixels, within half a pixel of ``lq``.

    The value of ``lq`` at that place counts too.
    """
    height, width = sr.shape[-2:]
    reach = ceil(max(height / lq.shape[-2], width / lq.shape[-1]) / 2)
    low = _find_local_maximum(-sr, reach).neg_()
    high = _find_local_maximum(sr, reach)
    own = resize(lq, height, width, "nearest")
    return torch.minimum(low, own, out=low), torch.maximum(high, own, out=high)


def _find_local_maximum(image: Tensor, reach: int) -> Tensor:
    """Find the maximum of the square around each pixel; torch's own pooling takes fifty times as long."""
    for _ in range(2):
        wide = image.clone()
        for shift in range(1, min(reach + 1, image.shape[-2])):
            for highest, shifted in (
                (wide[..., shift:, :], image[..., :-shift, :]),
                (wide[..., :-shift, :], image[..., shift:, :]),
            ):
                torch.maximum(highest, shifted, out=highest)
        image = wide.mT
    return image


def _solve_by_conjugate_gradients(
    rows: list[Block], columns: list[Block], target: Tensor, iterations: int
) -> Tensor:
    """Find the image that ``rows`` and ``columns``, applied along its axes, turn into ``target``.

    Each plane of (B, C, h, w) is solved separately. ``target`` is overwritten.
    """
    x = torch.zeros_like(target)
    residual, direction = target, target.clone()
    norm = target.square().sum((-2, -1), keepdim=True)
    is_on_cpu = target.device.type == "cpu"
    for i in range(iterations):
        is_exact = norm.max() < CG_TOLERANCE**2 * target[0, 0].numel()
        is_time_to_read = is_on_cpu or (i > 0 and i % ITERATIONS_BETWEEN_READS == 0)
        if is_time_to_read and is_exact:
            break
        product = multiply_both_axes(rows, columns, direction)
        energy = (direction * product).sum((-2, -1), keepdim=True)
        # A plane is not changed if it has no error, if its error is below float32 precision, or if
        # all planes are exact enough.
        step = torch.where((energy > 0) & ~is_exact, norm / energy, 0.0)
        x += step * direction
        residual -= product.mul_(step)
        del product
        last, norm = norm, residual.square().sum((-2, -1), keepdim=True)
        direction.mul_(torch.where(last > 0, norm / last, 0.0)).add_(residual)
    return x


def _require_source(sr: Tensor, lq: Tensor) -> None:
    (b, c, h, w), (batch, channels, height, width) = sr.shape, lq.shape
    if height > h or width > w:
        raise ValueError(
            f"the source is {width} x {height} pixels and the image {w} x {h}: the source must be no "
            "larger. Connect the image that was enlarged as the source, and the enlarged one as the "
            "image"
        )
    if channels != c or batch not in {1, b}:
        raise ValueError(
            f"the source has {batch} images of {channels} channels and the image {b} of {c}: "
            "connect one source for all, or one for each"
        )
