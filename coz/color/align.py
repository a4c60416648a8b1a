"""Align the colors of a super-resolved image with those of its input."""

from itertools import product

import torch
from torch import Tensor

from ..resample import require_same_shape

WAVELET_LEVELS = 5
"""Source: Chain-of-Zoom utils/wavelet_color_fix.py, wavelet_decomposition(levels=5)."""

ADAIN_EPS = 1e-5
"""Source: Chain-of-Zoom utils/wavelet_color_fix.py, calc_mean_std(eps=1e-5)."""

LUMA_WEIGHTS = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma (ITU-R BT.601). JPEG, Pillow's gray, BasicSR's metrics
and the YCbCr of super-resolution papers use the same."""


def compute_luma(image: Tensor) -> Tensor:
    """Compute the luma of an image (B, 3, H, W), of any float dtype: (B, 1, H, W) float32."""
    red, green, blue = image.float().unbind(1)
    return (LUMA_WEIGHTS[0] * red + LUMA_WEIGHTS[1] * green + LUMA_WEIGHTS[2] * blue).unsqueeze(1)


def wavelet_align(sr: Tensor, reference: Tensor, levels: int = WAVELET_LEVELS) -> Tensor:
    """Give ``sr`` the low frequencies of ``reference``; keep its detail.

    The decomposition is linear, so high(sr) + low(reference) equals sr + low(reference - sr). This
    needs one blur per level instead of two.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.
        levels: Number of blurs; blur i reaches 2**i pixels.

    Returns:
        (B, C, H, W) float32, not clamped.

    Raises:
        ValueError: If the two shapes differ or ``levels`` is below 1.

    Source: StableSR color fix, as used by Chain-of-Zoom utils/wavelet_color_fix.py.
    Deviation: any number of levels and channels (upstream fixes 5 and 3).
    """
    return _compute_low_frequency_difference(sr, reference, levels).add_(sr)


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
    Deviation: a single pixel takes the reference's color (upstream: NaN).
    """
    require_same_shape(sr, reference, "image and reference")
    sr_mean, sr_std = _compute_mean_std(sr.float())
    mean, std = _compute_mean_std(reference.float())
    return (sr.float() - sr_mean) / sr_std * std + mean


def ycbcr_align(sr: Tensor, reference: Tensor) -> Tensor:
    """Give ``sr`` the two chroma channels of ``reference``; keep its luma.

    In full-range YCbCr each of red, green and blue is the luma plus a term that depends only on the
    chroma, so it is enough to add the difference of the lumas to the reference.

    Args:
        sr: (B, 3, H, W), red, green, blue, any float dtype, values in [0, 1].
        reference: same shape as ``sr``.

    Returns:
        (B, 3, H, W) float32, not clamped.

    Raises:
        ValueError: If the two shapes differ or there are not 3 channels.
    """
    require_same_shape(sr, reference, "image and reference")
    if sr.shape[1] != 3:
        raise ValueError(f"ycbcr needs 3 channels (red, green, blue), got {sr.shape[1]}")
    return reference.float() - compute_luma(reference.float() - sr.float())


def histogram_align(sr: Tensor, reference: Tensor) -> Tensor:
    """Give each channel of ``sr`` the distribution of values of ``reference``.

    A value of ``sr`` becomes the value of ``reference`` at the same quantile. Between the quantiles of
    two values of ``reference`` the result is interpolated. Equal values stay equal, and the order of
    values is kept. Images and channels are matched one by one, so the working memory is that of one plane.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.

    Returns:
        (B, C, H, W) float32, within the range of ``reference``.

    Raises:
        ValueError: If the two shapes differ.

    Source: skimage.exposure.match_histograms, with the same result.
    """
    require_same_shape(sr, reference, "image and reference")
    matched = torch.empty(sr.shape, device=sr.device)
    for at in product(range(sr.shape[0]), range(sr.shape[1])):
        _match_plane(
            sr[at].float().flatten(), reference[at].float().flatten(), matched[at].view(-1)
        )
    return matched


def measure_low_frequency_distance(
    sr: Tensor, reference: Tensor, levels: int = WAVELET_LEVELS
) -> Tensor:
    """Measure how far the low frequencies of each image of ``sr`` are from those of ``reference``.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.
        levels: As in ``wavelet_align``, which defines the low frequencies.

    Returns:
        (B,) float32: root of the mean squared difference over channels and pixels.

    Raises:
        ValueError: If the two shapes differ or ``levels`` is below 1.
    """
    return (
        _compute_low_frequency_difference(sr, reference, levels).square_().mean((1, 2, 3)).sqrt_()
    )


def _compute_low_frequency_difference(sr: Tensor, reference: Tensor, levels: int) -> Tensor:
    require_same_shape(sr, reference, "image and reference")
    if levels < 1:
        raise ValueError(f"levels must be at least 1, got {levels}")
    low = reference.float() - sr.float()
    rows = torch.empty_like(low)
    for level in range(levels):
        _blur(low, 2**level, -1, out=rows)
        _blur(rows, 2**level, -2, out=low)
    return low


def _match_plane(plane: Tensor, reference: Tensor, out: Tensor) -> None:
    """Write into ``out`` the values of ``plane`` with the distribution of ``reference``.

    No tensor's size depends on pixel values: to know such a size, torch would wait for the GPU.
    """
    values, order = _sort_by_bits(plane)
    targets, _ = _sort_by_bits(reference)
    # The start of the next run is the rank: the number of values <= this one.
    _, ranks = _find_runs(values)
    starts, target_ranks = _find_runs(targets)
    upper = starts[ranks - 1]  # the lowest target with at least this rank
    lower = (upper - 1).clamp_(min=0)  # the target before it, if there is one
    upper_ranks = target_ranks[upper]
    share = 1 - (upper_ranks - ranks) / (upper_ranks - upper)
    out[order] = torch.lerp(targets[lower], targets[upper], share)


def _find_runs(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Find for each value the start of the run of values equal to it, and the start of the next run."""
    places = torch.arange(len(ordered), device=ordered.device)
    rises = ordered[1:] > ordered[:-1]
    starts, ends = places.clone(), places + 1
    starts[1:] *= rises
    ends[:-1] = torch.where(rises, ends[:-1], len(ordered))
    return starts.cummax(0).values, ends.flip(0).cummin(0).values.flip(0)


def _sort_by_bits(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Return what ``plane.sort()`` returns, three times as fast: the bits are sorted as integers."""
    bits = plane.view(torch.int32)
    # The bits of negative floats fall as the value rises.
    bits, places = (bits ^ (bits >> 31 & 0x7FFFFFFF)).sort()
    return (bits ^ (bits >> 31 & 0x7FFFFFFF)).view(torch.float32), places


def _blur(image: Tensor, radius: int, dim: int, out: Tensor) -> None:
    """Filter along ``dim`` with [1, 2, 1] / 4, taps ``radius`` pixels apart, edges repeated."""
    length = image.shape[dim]
    inside, edge = max(length - radius, 0), min(radius, length)
    torch.mul(image, 0.5, out=out)
    out.narrow(dim, edge, inside).add_(image.narrow(dim, 0, inside), alpha=0.25)
    out.narrow(dim, 0, inside).add_(image.narrow(dim, length - inside, inside), alpha=0.25)
    out.narrow(dim, 0, edge).add_(image.narrow(dim, 0, 1), alpha=0.25)
    out.narrow(dim, length - edge, edge).add_(image.narrow(dim, length - 1, 1), alpha=0.25)


def _compute_mean_std(image: Tensor) -> tuple[Tensor, Tensor]:
    correction = min(1, image.shape[-1] * image.shape[-2] - 1)
    variance, mean = torch.var_mean(image, dim=(-2, -1), keepdim=True, correction=correction)
    return mean, (variance + ADAIN_EPS).sqrt()
