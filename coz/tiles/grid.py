"""Join images of equal size, to a batch or to one image, and split them again."""

from collections.abc import Sequence

import torch
from torch import Tensor


def join_batch(images: Sequence[Tensor]) -> Tensor:
    """Join batches to one. A single batch is returned as it is, not copied."""
    return images[0] if len(images) == 1 else torch.cat(tuple(images))


def join_grid(images: Tensor, rows: int, columns: int) -> Tensor:
    """Join (rows * columns, C, h, w) row by row to (1, C, rows * h, columns * w), in any dtype."""
    _, channels, height, width = images.shape
    grid = images.reshape(rows, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(1, channels, rows * height, columns * width)


def split_grid(image: Tensor, rows: int, columns: int) -> Tensor:
    """Split (1, C, rows * h, columns * w) into (rows * columns, C, h, w), as ``join_grid`` joined them."""
    channels, height, width = image.shape[1], image.shape[2] // rows, image.shape[3] // columns
    grid = image.reshape(channels, rows, height, columns, width).permute(1, 3, 0, 2, 4)
    return grid.reshape(rows * columns, channels, height, width)
