"""Rate how much detail each part of an image has."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, log

import torch
from torch import Tensor

from ..color.align import compute_luma
from ..geometry import Window
from .layout import TileLayout, find_cells

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
    sums: list[Tensor] = []
    counts: list[Tensor] = []
    for top, bottom in pairwise(bounds):
        luma = compute_luma(image[..., top:bottom, :])[0, 0]
        slope = luma.diff(dim=0).abs().sum(0)
        slope[:-1] += luma.diff(dim=1).abs().sum(0)
        sums.append(torch.stack((luma.sum(0), luma.square().sum(0), slope / 2)))
        counts.append(_count_levels(luma, column, columns))
    heights = image.new_tensor(bounds, dtype=torch.int64).diff()
    return _rate_cells(torch.stack(sums), torch.stack(counts), heights).cpu().numpy().tolist()


def find_easy_tiles(
    ratings: Sequence[Sequence[float]], layout: TileLayout, limit: float
) -> list[int]:
    """Find the tiles without detail: those whose core touches only cells rated lower than the limit.

    Detail at the edge of a tile does not count, as there the neighbor has more weight.

    Args:
        ratings: As ``rate_complexity`` returns them, of the image before it is enlarged.
        layout: Tiles of the enlarged image.
        limit: A rating, 0 to 1. With 0 no tile is found, with 1 all are.

    Returns:
        Their indices in ``layout.list_windows()``.
    """

    def rate(core: Window) -> float:
        top, bottom = find_cells(core.y, core.height, layout.height, len(ratings))
        left, right = find_cells(core.x, core.width, layout.width, len(ratings[0]))
        return max(max(row[left:right]) for row in ratings[top:bottom])

    cores = layout.list_cores()
    return [i for i, core in enumerate(cores) if limit == 1 or rate(core) < limit]


def _count_levels(luma: Tensor, column: Tensor, columns: int) -> Tensor:
    """Count the pixels of each level in each cell of a row of cells: (columns, levels), integers.

    ``column`` holds the cell of each x. scatter_add_ on a GPU adds in another order each time. Sums of
    floats depend on the order, sums of integers do not.
    """
    level = (luma * HISTOGRAM_LEVELS).long().clamp_(0, HISTOGRAM_LEVELS - 1)
    place = (level + column * HISTOGRAM_LEVELS).flatten()
    counts = place.new_zeros(columns * HISTOGRAM_LEVELS)
    return counts.scatter_add_(0, place, torch.ones_like(place)).view(columns, HISTOGRAM_LEVELS)


def _rate_cells(sums: Tensor, counts: Tensor, heights: Tensor) -> Tensor:
    """Rate cells from the sums of their columns of pixels (rows, 3, width) and their levels' counts."""
    columns = counts.shape[1]
    width = sums.shape[-1]
    edges = -(-torch.arange(columns + 1, device=sums.device) * width // columns)
    starts, widths = edges[:-1], edges.diff()
    totals = sums.new_zeros(*sums.shape[:2], columns)
    # In order from the left: float sums depend on the order.
    for k in range(ceil(width / columns)):
        place = (starts + k).clamp_(max=width - 1)
        totals += torch.where(k < widths, sums[..., place], 0.0)
    pixels = heights[:, None] * widths
    mean, square, gradient = (totals / pixels[:, None]).unbind(1)
    deviation = (square - mean.square()).clamp_(min=0).sqrt()
    share = counts / pixels[..., None]
    entropy = -torch.xlogy(share, share).sum(-1) / log(2)
    measures = torch.stack((deviation, gradient, entropy), dim=-1)
    calm, complex_ = measures.new_tensor((CALM_MEASURES, COMPLEX_MEASURES))
    return ((measures - calm) / (complex_ - calm)).clamp_(0, 1).mean(-1)
