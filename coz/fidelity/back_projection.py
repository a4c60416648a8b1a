"""Hold a super-resolved picture to the picture it was made from."""

from math import ceil

import torch
from torch import Tensor

from ..resample import resize
from .banded_resize import Block, Kernel, axes, both, resized
from .metrics import psnr

OVERSHOOT = 1.9
"""Of a step towards no error: 1 reaches it and 2 mirrors it; near 2 the turns are fewest."""

SETTLING = 100
"""Conjugate gradients at most. Each leaves about a third of the error at 1.5x and more, so that ten
are enough; the nearer to 1x, the more it takes."""

ENOUGH = 1e-6
"""Error (RMS) at which they end: float32's own is near."""

BETWEEN_READS = 8
"""Conjugate gradients after which a GPU is asked whether there is ENOUGH. On the CPU each asks."""

AGREEMENT_WORDS = ((40, "repeats"), (30, "is close to"), (20, "departs from"))
"""From how many dB on what is said of a step. 40 dB is an error of 2.6 levels of 255 (RMS), which can
hardly be seen, 30 dB one of 8, seen beside the input, 20 dB one of 26, seen at once.
``js/viewer/caption.js`` has the same."""

MOST_DECIBELS = 99
"""An error of 1e-5: float32's own rounding is near, and eight bits are far."""


def agreement(sr: Tensor, lq: Tensor, kernel: Kernel = "bicubic") -> float:
    """How well a super-resolved picture, made small again, repeats its source: PSNR in dB.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        lq: (B or 1, C, h, w), its source, no larger than ``sr``.
        kernel: of the shrinking, antialiased: "bicubic" is Pillow's, "area" the mean of what each
            pixel covers.

    Returns:
        As ``metrics.psnr``: infinite where the two are equal, NaN where a value is.

    Raises:
        ValueError: If ``lq`` is larger than ``sr`` along an axis, the counts of channels or of
            pictures do not match, or ``kernel`` is unknown.
    """
    _check(sr, lq)
    height, width = lq.shape[-2:]
    return psnr(resized(sr, height, width, kernel), lq.expand(len(sr), -1, -1, -1))


def decibels(agreement: float) -> str:
    """For a person; what float32 and eight bits cannot tell from equality is told as such."""
    return f"{agreement:.1f} dB" if agreement < MOST_DECIBELS else f"over {MOST_DECIBELS} dB"


def describe_agreement(agreement: float, source: str = "its input") -> str:
    """Say in words how well a picture repeats its source, with the dB in brackets."""
    verb = next((verb for least, verb in AGREEMENT_WORDS if agreement >= least), "contradicts")
    return f"{verb} {source} ({decibels(agreement)})"


def back_project(
    sr: Tensor,
    lq: Tensor,
    strength: float = 1.0,
    iterations: int = 10,
    kernel: Kernel = "bicubic",
) -> Tensor:
    """``sr`` with a small change that makes its downsampled form equal ``lq``.

    Where D shrinks a picture, D' (D D')^-1 (lq - D sr) is the smallest such change, but it rings
    beside edges that lie or look otherwise than in ``lq``. So steps towards it take turns with
    setting every pixel back between the darkest and the brightest that ``sr`` and ``lq`` hold
    around it; the smallest change from there comes last, and leaves no error.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        lq: (B or 1, C, h, w), its source, no larger than ``sr``.
        strength: 0 changes nothing, 1 leaves no error, between them the change in proportion.
        iterations: Turns; the more, the less it rings. 1 is the smallest change.
        kernel: as of ``agreement``.

    Returns:
        (B, C, H, W) float32, not clamped.

    Raises:
        ValueError: As ``agreement``, or if ``strength`` is not 0..1 or ``iterations`` below 1.
    """
    _check(sr, lq)
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be 0 to 1, got {strength:g}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    if strength == 0:
        return sr.float()
    sr, lq = sr.float().contiguous(), lq.float().contiguous()
    height, width = lq.shape[-2:]
    rows, columns = axes(sr, height, width, kernel)

    def corrected(x: Tensor, steps: int, times: float) -> Tensor:
        error = lq - both(rows.down, columns.down, x)
        change = _conjugate_gradients(rows.gram, columns.gram, error, steps)
        change = both(rows.back, columns.back, change)
        return torch.add(x, change, alpha=times, out=change)

    x = sr
    if iterations > 1:
        low, high = _nearby(sr, lq)
        for _ in range(iterations - 1):
            x = corrected(x, 1, OVERSHOOT).clamp_(low, high)
    x = corrected(x, SETTLING, 1.0)
    return x if strength == 1 else torch.lerp(sr, x, strength)


def _nearby(sr: Tensor, lq: Tensor) -> tuple[Tensor, Tensor]:
    """The darkest and the brightest around each pixel of ``sr``, within half a pixel of ``lq``."""
    height, width = sr.shape[-2:]
    reach = ceil(max(height / lq.shape[-2], width / lq.shape[-1]) / 2)
    low, high = -_brightest(-sr, reach), _brightest(sr, reach)
    own = resize(lq, height, width, "nearest")
    return torch.minimum(low, own), torch.maximum(high, own)


def _brightest(image: Tensor, reach: int) -> Tensor:
    """Of the square around each pixel; torch's own pooling takes fifty times as long."""
    for _ in range(2):
        wide = image.clone()
        for shift in range(1, min(reach + 1, image.shape[-2])):
            for to, of in (
                (wide[..., shift:, :], image[..., :-shift, :]),
                (wide[..., :-shift, :], image[..., shift:, :]),
            ):
                torch.maximum(to, of, out=to)
        image = wide.mT
    return image


def _conjugate_gradients(
    rows: list[Block], columns: list[Block], right: Tensor, iterations: int
) -> Tensor:
    """Return x of (rows x columns) x = right, for each plane of (B, C, h, w) by itself."""
    x = torch.zeros_like(right)
    residual, direction = right, right
    norm = right.square().sum((-2, -1), keepdim=True)
    is_on_cpu = right.device.type == "cpu"
    for i in range(iterations):
        is_enough = norm.max() < ENOUGH**2 * right[0, 0].numel()
        is_read = is_on_cpu or (i > 0 and i % BETWEEN_READS == 0)
        if is_read and is_enough:
            break
        turned = both(rows, columns, direction)
        energy = (direction * turned).sum((-2, -1), keepdim=True)
        # A plane without error, or at float32's end, stands still, and all do once there is enough.
        step = torch.where((energy > 0) & ~is_enough, norm / energy, 0.0)
        x = x + step * direction
        residual = residual - step * turned
        last, norm = norm, residual.square().sum((-2, -1), keepdim=True)
        direction = residual + torch.where(last > 0, norm / last, 0.0) * direction
    return x


def _check(sr: Tensor, lq: Tensor) -> None:
    (b, c, h, w), (batch, channels, height, width) = sr.shape, lq.shape
    if height > h or width > w:
        raise ValueError(
            f"the source is {width} x {height} pixels and the picture {w} x {h}: the source must be "
            "no larger. Connect the picture that was enlarged as the source, and the enlarged one "
            "as the image"
        )
    if channels != c or batch not in {1, b}:
        raise ValueError(
            f"the source holds {batch} pictures of {channels} channels and the image {b} of {c}: "
            "connect one source for all, or one for each"
        )
