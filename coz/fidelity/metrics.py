"""How near a picture is to the true one, how sharp it is, and whether its colours have moved."""

from collections.abc import Iterator
from itertools import pairwise
from math import exp, inf, log10

import torch
from torch import Tensor

from ..color.align import luma
from ..resample import require_same_shape

ROWS = 64
"""Rows that are measured at once: what they need stays in the processor's cache, and a large picture
takes no more memory than a small one."""

SIDE = 11
"""Pixels of the SSIM's window, along a side. This and the four below: Wang et al. 2004, 3.C."""

SIGMA = 1.5
"""Standard deviation of its Gaussian, in pixels."""

C1 = 0.01**2
C2 = 0.03**2

MAX_LEVEL = 255
"""The highest of eight bits: sharpness and colours are given in these levels."""


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of two pictures, in dB.

    Args:
        a: (B, C, H, W), any float dtype, values in [0, 1].
        b: the other, in the same shape.

    Returns:
        ``mse_to_decibels`` of the mean squared error over all pixels: infinite where the two are
        equal, NaN where a value is.

    Raises:
        ValueError: If the shapes differ.
    """
    require_same_shape(a, b, "the two pictures")
    bands = zip(split_rows(a), split_rows(b), strict=True)
    total = sum_of([(x - y).square().sum() for x, y in bands])
    return mse_to_decibels(total / a.numel())


def mse_to_decibels(mean_squared_error: float) -> float:
    """Convert a mean squared error to a PSNR in dB, against a peak of 1; infinite for 0."""
    return inf if mean_squared_error == 0 else -10 * log10(mean_squared_error)


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of two pictures: 1 where they are equal, about 0 where nothing is alike.

    That of the paper and of most tables: a Gaussian window of 11 x 11 pixels, only where it lies
    wholly inside, on the pictures as they are; the mean over places, channels and pictures. So it is
    piq's with ``downsample=False``, which else makes pictures of 384 pixels and more small first, and
    torchmetrics' where its mean leaves out the 5 pixels at each edge, which it mirrors.

    Args:
        a: (B, C, H, W), any float dtype, values in [0, 1].
        b: the other, in the same shape.

    Raises:
        ValueError: If the shapes differ, or a side is below 11 pixels.

    Source: Wang et al. 2004, Image Quality Assessment: From Error Visibility to Structural
        Similarity, Eq. 13.
    """
    require_same_shape(a, b, "the two pictures")
    height, width = a.shape[-2:]
    if min(height, width) < SIDE:
        raise ValueError(
            f"SSIM compares windows of {SIDE} x {SIDE} pixels, and the pictures have {width} x "
            f"{height}: give larger ones"
        )
    sums: list[Tensor] = []
    for x, y in zip(split_rows(a, SIDE - 1), split_rows(b, SIDE - 1), strict=True):
        mean_x, mean_y, xx, yy, xy = _average_windows(torch.stack((x, y, x * x, y * y, x * y)))
        both, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
        alike = (2 * both + C1) / (squares + C1)
        alike *= (2 * (xy - both) + C2) / (xx + yy - squares + C2)
        sums.append(alike.sum())
    places = (height - SIDE + 1) * (width - SIDE + 1)
    return sum_of(sums) / (places * a.shape[0] * a.shape[1])


def sharpness(image: Tensor) -> float:
    """Variance of the Laplacian of the luma, in squared levels of 255; of a batch, the mean.

    It says how much fine light and dark there is, not whether it is true: noise is sharp too.

    Args:
        image: (B, 3, H, W), any float dtype, values in [0, 1].

    Raises:
        ValueError: If it has not three channels, or a side is below 3 pixels.
    """
    height, width = image.shape[-2:]
    if image.shape[1] != 3 or min(height, width) < 3:
        raise ValueError(
            "sharpness needs pictures of three channels and of 3 x 3 pixels or more, got "
            f"{image.shape[1]} channels of {width} x {height}"
        )
    total, square = (image.new_zeros(len(image), dtype=torch.float32) for _ in range(2))
    for band in split_rows(image, 2):
        edges = laplacian(band)
        total += edges.sum((-2, -1))
        square += edges.square().sum((-2, -1))
    places = (height - 2) * (width - 2)
    variance = square / places - (total / places).square()
    # Of a smooth picture rounding leaves less than 0, which a table would show as -0.
    return float(variance.clamp(min=0).mean())


def laplacian(image: Tensor) -> Tensor:
    """Four times each pixel's luma less that of its neighbours, in levels of 255.

    Args:
        image: (B, 3, H, W), any float dtype, values in [0, 1].

    Returns:
        (B, H - 2, W - 2) float32: the pixels at the edge have not four neighbours.
    """
    light = MAX_LEVEL * luma(image)[:, 0]
    across = light[:, 1:-1, :-2] + light[:, 1:-1, 2:]
    return 4 * light[:, 1:-1, 1:-1] - across - light[:, :-2, 1:-1] - light[:, 2:, 1:-1]


def color_shift(sr: Tensor, lq: Tensor) -> Tensor:
    """By how much the mean of each channel has moved, in levels of 255; above 0 is brighter.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        lq: (B, C, h, w), what it was made from, of any size.

    Returns:
        (C,) float32.
    """
    after, before = (x.mean((0, 2, 3), dtype=torch.float32) for x in (sr, lq))
    return (after - before) * MAX_LEVEL


def color_drift(sr: Tensor, lq: Tensor) -> float:
    """``color_shift`` of the channel that has moved most, without its sign."""
    return float(color_shift(sr, lq).abs().max())


def split_rows(image: Tensor, shared: int = 0) -> Iterator[Tensor]:
    """Yield bands of ``ROWS`` rows of an image (B, C, H, W), in planes, as float32.

    A band ends with the first ``shared`` rows of the next one.
    """
    height = image.shape[-2] - shared
    for top, bottom in pairwise([*range(0, height, ROWS), height]):
        yield image[..., top : bottom + shared, :].float().contiguous()


def sum_of(values: list[Tensor]) -> float:
    """Add up scalars in double precision. They leave their device together: each wait for it is long."""
    return sum(torch.stack(values).tolist())


def _average_windows(planes: Tensor) -> Tensor:
    """Means under the SSIM's window; one pixel after the other is faster than a convolution."""
    weights = [exp(-(((k - SIDE // 2) / SIGMA) ** 2) / 2) for k in range(SIDE)]
    for axis in (-2, -1):
        places = planes.shape[axis] - SIDE + 1
        mean = torch.zeros_like(planes.narrow(axis, 0, places))
        for k, weight in enumerate(weights):
            mean.add_(planes.narrow(axis, k, places), alpha=weight / sum(weights))
        planes = mean
    return planes
