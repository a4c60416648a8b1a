"""How much there is to see in each part of a picture."""

from itertools import pairwise
from math import ceil, log

import torch
from torch import Tensor

from ..color.align import luma

CELL = 16
"""Side of a cell in pixels: small beside a tile, with enough pixels for a histogram."""

HISTOGRAM_LEVELS = 32
"""Of the histogram. A finer one measures noise: a cell holds no more than 256 pixels."""

CALM = (0.01, 0.003, 1.0)
"""Standard deviation, gradient a pixel (both in parts of white), entropy in bits: what a photographed
sky stays below. A shade so slow that a cell holds two neighbouring levels has one bit."""

COMPLEX = (0.06, 0.03, 3.0)
"""The same of fur, hair and grass in the photographs bundled with scikit-image: there, or above."""


def complexity_map(image: Tensor, cell: int = CELL) -> list[list[float]]:
    """Rate the luma of each cell of a picture from 0 (a clear sky) to 1 (hair, grass).

    The mean of three measures: standard deviation, mean gradient and entropy, each from 0 at
    ``CALM`` to 1 at ``COMPLEX``. So a cell's number depends on its own pixels (and those on its
    right edge), never on the rest of the picture. Rate a picture before it is enlarged: enlarging
    makes everything calm. It works through the picture by rows of cells, and needs no more memory
    than a few of those.

    Args:
        image: (1, 3, H, W), any float dtype, values in [0, 1].
        cell: side of a cell in pixels, about: cells divide the picture evenly.

    Returns:
        Rows of numbers in 0..1, max(1, round(side / cell)) a side.

    Raises:
        ValueError: If ``image`` is a batch or has no pixel, or ``cell`` is below 1.
    """
    if image.shape[:2] != (1, 3) or not image.numel():
        raise ValueError(f"image must be one picture (1, 3, H, W), got {tuple(image.shape)}")
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
        grid.append(_rate(light, column, widths))
    return torch.stack(grid).tolist()


def _rate(light: Tensor, column: Tensor, widths: Tensor) -> Tensor:
    """Rate the luma of one row of cells; ``column`` says to which of them each x belongs."""
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
    calm, complex_ = measures.new_tensor((CALM, COMPLEX))
    return ((measures - calm) / (complex_ - calm)).clamp_(0, 1).mean(1)
