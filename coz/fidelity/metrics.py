"""Measure how close an image is to another, how sharp it is, and how far its colors have moved."""

from collections.abc import Iterator
from itertools import pairwise
from math import exp, inf, log10
from operator import itemgetter

import torch
from torch import Tensor

from ..color.align import compute_luma
from ..resample import require_same_shape
from .pending_figure import PendingFigure, read_figures

ROWS_PER_BAND = 64
"""Number of rows that are measured at once: their data stays in the processor's cache, and a large image
needs no more memory than a small one."""

SSIM_WINDOW_PIXELS = 11
"""Side of the SSIM's window. This and the three constants below are from Wang et al. 2004, 3.C."""

SSIM_SIGMA_PIXELS = 1.5
"""Standard deviation of the window's Gaussian."""

SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2

MAX_LEVEL = 255
"""The highest 8-bit level: sharpness and colors are given in 8-bit levels."""


def measure_psnr(a: Tensor, b: Tensor) -> float:
    """Compute the peak signal-to-noise ratio of two images, in dB.

    Args:
        a: (B, C, H, W), any float dtype, values in [0, 1].
        b: The other image, of the same shape.

    Returns:
        ``mse_to_decibels`` of the mean squared error over all pixels: infinite for equal images,
        NaN if a value is NaN.

    Raises:
        ValueError: If the shapes differ.
    """
    return read_figures(start_measuring_psnr(a, b))[0]


def start_measuring_psnr(a: Tensor, b: Tensor) -> PendingFigure:
    """Start to compute ``measure_psnr``; ``read_figures`` reads the result from the device."""
    require_same_shape(a, b, "the two images")
    bands = zip(split_rows(a), split_rows(b), strict=True)
    errors = torch.stack([(x - y).square().sum() for x, y in bands])
    count = a.numel()

    # ``finish`` holds no reference to the images, so that they can be freed before it is called.
    def finish(values: list[float]) -> float:
        return mse_to_decibels(sum(values) / count)

    return PendingFigure(errors, finish)


def mse_to_decibels(mean_squared_error: float) -> float:
    """Convert a mean squared error to a PSNR in dB, against a peak of 1; infinite for 0."""
    return inf if mean_squared_error == 0 else -10 * log10(mean_squared_error)


def measure_ssim(a: Tensor, b: Tensor) -> float:
    """Compute the structural similarity of two images: 1 if equal, about 0 if nothing is similar.

    This is the variant of Wang et al. and of most published tables: a Gaussian window of 11 x 11
    pixels at every position that lies wholly inside, without downscaling, averaged over positions,
    channels and images. piq computes the same with ``downsample=False``, and torchmetrics if its
    mean leaves out the 5 pixels at each edge.

    Args:
        a: (B, C, H, W), any float dtype, values in [0, 1].
        b: The other image, of the same shape.

    Raises:
        ValueError: If the shapes differ, or a side is below 11 pixels.

    Source: Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural
        Similarity, Eq. 13.
    """
    return read_figures(start_measuring_ssim(a, b))[0]


def start_measuring_ssim(a: Tensor, b: Tensor) -> PendingFigure:
    """Start to compute ``measure_ssim``; ``read_figures`` reads the result from the device."""
    require_same_shape(a, b, "the two images")
    height, width = a.shape[-2:]
    if min(height, width) < SSIM_WINDOW_PIXELS:
        raise ValueError(
            f"SSIM compares windows of {SSIM_WINDOW_PIXELS} x {SSIM_WINDOW_PIXELS} pixels, and the images "
            f"have {width} x {height}: use larger ones"
        )
    bands: list[Tensor] = []
    for x, y in zip(
        split_rows(a, SSIM_WINDOW_PIXELS - 1), split_rows(b, SSIM_WINDOW_PIXELS - 1), strict=True
    ):
        mean_x, mean_y, xx, yy, xy = _average_windows(torch.stack((x, y, x * x, y * y, x * y)))
        both, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
        alike = (2 * both + SSIM_C1) / (squares + SSIM_C1)
        alike *= (2 * (xy - both) + SSIM_C2) / (xx + yy - squares + SSIM_C2)
        bands.append(alike.sum())
    places = (height - SSIM_WINDOW_PIXELS + 1) * (width - SSIM_WINDOW_PIXELS + 1)
    count = places * a.shape[0] * a.shape[1]

    def finish(values: list[float]) -> float:
        return sum(values) / count

    return PendingFigure(torch.stack(bands), finish)


def measure_sharpness(image: Tensor) -> float:
    """Compute the variance of the luma's Laplacian, in squared levels of 255, averaged over a batch.

    It measures how much fine structure there is, not whether it is true: noise is sharp too.

    Args:
        image: (B, 3, H, W), any float dtype, values in [0, 1].

    Raises:
        ValueError: If ``image`` does not have three channels, or a side is below 3 pixels.
    """
    return read_figures(start_measuring_sharpness(image))[0]


def start_measuring_sharpness(image: Tensor) -> PendingFigure:
    """Start to compute ``measure_sharpness``; ``read_figures`` reads the result from the device."""
    height, width = image.shape[-2:]
    if image.shape[1] != 3 or min(height, width) < 3:
        raise ValueError(
            "sharpness needs images of three channels and at least 3 x 3 pixels, got "
            f"{image.shape[1]} channels of {width} x {height}"
        )
    total, square = (image.new_zeros(len(image), dtype=torch.float32) for _ in range(2))
    for band in split_rows(image, 2):
        edges = compute_laplacian(band)
        total += edges.sum((-2, -1))
        square += edges.square().sum((-2, -1))
    places = (height - 2) * (width - 2)
    variance = square / places - (total / places).square()
    # Rounding can make the variance of a smooth image negative, which a table would show as -0.
    return PendingFigure(variance.clamp(min=0).mean().reshape(1), itemgetter(0))


def compute_laplacian(image: Tensor) -> Tensor:
    """Return four times each pixel's luma minus the sum of its four neighbors', in levels of 255.

    Args:
        image: (B, 3, H, W), any float dtype, values in [0, 1].

    Returns:
        (B, H - 2, W - 2) float32, without the edge pixels, which lack a neighbor.
    """
    luma = MAX_LEVEL * compute_luma(image)[:, 0]
    across = luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    return 4 * luma[:, 1:-1, 1:-1] - across - luma[:, :-2, 1:-1] - luma[:, 2:, 1:-1]


def measure_color_shift(sr: Tensor, lq: Tensor) -> Tensor:
    """Compute how far the mean of each channel has moved, in levels of 255; above 0 is brighter.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        lq: (B, C, h, w) of any size, the image that ``sr`` was made from.

    Returns:
        (C,) float32.
    """
    after, before = (x.mean((0, 2, 3), dtype=torch.float32) for x in (sr, lq))
    return (after - before) * MAX_LEVEL


def measure_color_drift(sr: Tensor, lq: Tensor) -> float:
    """Return the absolute ``measure_color_shift`` of the channel that has moved most."""
    return read_figures(start_measuring_color_drift(sr, lq))[0]


def start_measuring_color_drift(sr: Tensor, lq: Tensor) -> PendingFigure:
    """Start to compute ``measure_color_drift``; ``read_figures`` reads the result from the device."""
    return PendingFigure(measure_color_shift(sr, lq).abs().max().reshape(1), itemgetter(0))


def split_rows(image: Tensor, shared: int = 0) -> Iterator[Tensor]:
    """Yield bands of ``ROWS_PER_BAND`` rows of an image (B, C, H, W), contiguous, as float32.

    A band also has the first ``shared`` rows of the next one.
    """
    height = image.shape[-2] - shared
    for top, bottom in pairwise([*range(0, height, ROWS_PER_BAND), height]):
        yield image[..., top : bottom + shared, :].float().contiguous()


def _average_windows(planes: Tensor) -> Tensor:
    """Average under the SSIM's window, by a sum of shifted planes, which is faster than a convolution."""
    weights = [
        exp(-(((k - SSIM_WINDOW_PIXELS // 2) / SSIM_SIGMA_PIXELS) ** 2) / 2)
        for k in range(SSIM_WINDOW_PIXELS)
    ]
    for axis in (-2, -1):
        places = planes.shape[axis] - SSIM_WINDOW_PIXELS + 1
        mean = torch.zeros_like(planes.narrow(axis, 0, places))
        for k, weight in enumerate(weights):
            mean.add_(planes.narrow(axis, k, places), alpha=weight / sum(weights))
        planes = mean
    return planes
