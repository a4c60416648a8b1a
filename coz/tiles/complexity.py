"""Rate how much detail each part of an image has."""

from itertools import pairwise
from math import ceil, log

import torch
from torch import Tensor

from ..color.align import luma

CELL_PIXELS = 16
"""Side of a cell: small compared with a tile, with enough pixels for a histogram."""

HISTOGRAM_LEVELS = 32
"""Bins of the histogram. More would measure noise, as a cell has only about 256 pixels."""

CALM_MEASURES = (0.01, 0.003, 1.0)
"""Limits that a photographed sky stays below: standard deviation, gradient per pixel (in both, 1 is
white) and entropy in bits. A slow gradient, with two neighboring levels in a cell, has an entropy of
one bit."""

COMPLEX_MEASURES = (0.06, 0.03, 3.0)
"""The same measures, which fur, hair and grass in scikit-image's photographs reach or exceed."""


def rate_complexity(image: Tensor, cell: int = CELL_PIXELS) -> list[list[float]]:
    """Rate the luma of each cell of an image from 0 (a clear sky) to 1 (hair, grass).

    A rating is the mean of three measures: standard deviation, mean gradient and entropy, each
    scaled from 0 at ``CALM_MEASURES`` to 1 at ``COMPLEX_MEASURES``. It depends only on the pixels of
    the cell and on those next to its right edge. Rate an image before it is enlarged, as
    enlarging makes everything calm. Only a few rows of cells are in memory at a time.

    Args:
        image: (1, 3, H, W), any float dtype, values in [0, 1].
        cell: Approximate side of a cell in pixels; cells divide the image evenly.

    Returns:
        Rows of ratings in 0..1, max(1, round(side / cell)) along each side.

    Raises:
        ValueError: If ``image`` is a batch or empty, or ``cell`` is below 1.
    """
    if image.shape[:2] != (1, 3) or not image.numel():
        raise ValueError(f"image must be a single image (1, 3, H, W), got {tuple(image.shape)}")
    if cell < 1:
        raise ValueError(f"cell must be at least 1 pixel, got {cell}")
    height, width = image.shape[-2:]
    rows, columns = (max(1, round(side / cell)) for side in (height, width))
    column = torch.arange(width, device=image.device) * columns // width
    bounds = [ceil(row * height / rows) for row in range(rows + 1)]
    widths = column.bincount(minlength=columns)
    grid: list[Tensor] = []
    for top, bottom in pairwise(bounds):
        light = luma(image[..., top:bottom, :])[0, 0]
        grid.append(_rate_row(light, column, widths))
    return torch.stack(grid).cpu().numpy().tolist()


def _rate_row(light: Tensor, column: Tensor, widths: Tensor) -> Tensor:
    """Rate the luma of one row of cells; ``column`` holds the cell of each x."""
    columns = len(widths)
    slope = light.diff(dim=0).abs().sum(0)
    slope[:-1] += light.diff(dim=1).abs().sum(0)
    sums = torch.stack((light.sum(0), light.square().sum(0), slope / 2))
    pixels = widths * light.shape[0]
    mean, square, gradient = sums.new_zeros(3, columns).index_add_(1, column, sums) / pixels
    deviation = (square - mean.square()).clamp_(min=0).sqrt()

    level = (light * HISTOGRAM_LEVELS).long().clamp_(0, HISTOGRAM_LEVELS - 1)
    counts = (
        (level + column * HISTOGRAM_LEVELS).flatten().bincount(minlength=columns * HISTOGRAM_LEVELS)
    )
    share = counts.view(columns, HISTOGRAM_LEVELS) / pixels[:, None]
    entropy = -torch.xlogy(share, share).sum(1) / log(2)

    measures = torch.stack((deviation, gradient, entropy), dim=1)
    calm, complex_ = measures.new_tensor((CALM_MEASURES, COMPLEX_MEASURES))
    return ((measures - calm) / (complex_ - calm)).clamp_(0, 1).mean(1)
