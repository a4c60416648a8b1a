"""Colour alignment: what super-resolution invents keeps the colours of what it was given."""

import torch
from torch import Tensor

WAVELET_LEVELS = 5
"""Chain-of-Zoom utils/wavelet_color_fix.py, wavelet_decomposition(levels=5)."""

ADAIN_EPS = 1e-5
"""Chain-of-Zoom utils/wavelet_color_fix.py, calc_mean_std(eps=1e-5)."""


def wavelet_align(sr: Tensor, reference: Tensor, levels: int = WAVELET_LEVELS) -> Tensor:
    """Give ``sr`` the low frequencies of ``reference``; keep its detail.

    The decomposition is linear, so high(sr) + low(reference) is sr + low(reference - sr): one
    blur instead of two, and each a pair of 3-tap passes instead of a dense 3x3 kernel.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.
        levels: Number of blurs; the one of level i reaches 2**i pixels.

    Returns:
        (B, C, H, W) float32, not clamped.

    Raises:
        ValueError: If the two shapes differ or ``levels`` is below 1.

    Source: StableSR color fix, as used by Chain-of-Zoom utils/wavelet_color_fix.py.
    Deviation: any number of levels and channels (upstream fixes 5 and 3).
    """
    _require_same_shape(sr, reference)
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    low = reference.float() - sr.float()
    rows = torch.empty_like(low)
    for level in range(levels):
        _blur(low, 2**level, -1, out=rows)
        _blur(rows, 2**level, -2, out=low)
    return low.add_(sr)


def adain_align(sr: Tensor, reference: Tensor) -> Tensor:
    """Give each channel of ``sr`` the mean and standard deviation of ``reference``.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.

    Returns:
        (B, C, H, W) float32, not clamped.

    Raises:
        ValueError: If the two shapes differ.

    Source: Huang and Belongie 2017, as used by Chain-of-Zoom utils/wavelet_color_fix.py.
    Deviation: a single pixel has no spread and takes the reference's colour (upstream: NaN).
    """
    _require_same_shape(sr, reference)
    sr_mean, sr_std = _mean_std(sr.float())
    mean, std = _mean_std(reference.float())
    return (sr.float() - sr_mean) / sr_std * std + mean


def _blur(image: Tensor, radius: int, dim: int, out: Tensor) -> None:
    """[1, 2, 1] / 4 with taps ``radius`` apart along ``dim``, edges repeated."""
    length = image.shape[dim]
    inside, edge = max(length - radius, 0), min(radius, length)
    torch.mul(image, 0.5, out=out)
    out.narrow(dim, edge, inside).add_(image.narrow(dim, 0, inside), alpha=0.25)
    out.narrow(dim, 0, inside).add_(image.narrow(dim, length - inside, inside), alpha=0.25)
    out.narrow(dim, 0, edge).add_(image.narrow(dim, 0, 1), alpha=0.25)
    out.narrow(dim, length - edge, edge).add_(image.narrow(dim, length - 1, 1), alpha=0.25)


def _mean_std(image: Tensor) -> tuple[Tensor, Tensor]:
    correction = min(1, image.shape[-1] * image.shape[-2] - 1)
    variance, mean = torch.var_mean(image, dim=(-2, -1), keepdim=True, correction=correction)
    return mean, (variance + ADAIN_EPS).sqrt()


def _require_same_shape(sr: Tensor, reference: Tensor) -> None:
    if sr.shape != reference.shape:
        raise ValueError(
            f"image and reference must have the same shape, got {tuple(sr.shape)} and "
            f"{tuple(reference.shape)}"
        )
