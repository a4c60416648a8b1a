"""Measure how visible the borders of blocks or tiles are in an image."""

from torch import Tensor

GRID_PIXELS = 8
"""Spacing of the grid in pixels: that of a latent pixel. Borders of tiles lie on this grid too."""

ROUNDING = 0.5 / 255
"""Half a level of 8 bits: smaller differences do not survive in an 8-bit file."""


def measure_seam(image: Tensor) -> float:
    """Divide the mean difference of neighboring pixels across the grid's lines by that elsewhere.

    Args:
        image: (1, C, H, W), at least 16 x 16, values in [0, 1].

    Returns:
        The ratio of the worse axis, at least 1. 1 means that no seam is visible.
    """
    return max(_compute_ratio(image), _compute_ratio(image.mT), 1.0)


def _compute_ratio(image: Tensor) -> float:
    differences = image.diff(dim=-1).abs().mean((0, 1, 2))
    # Difference x is that of the pixels x and x + 1: the last one of a block crosses a line.
    on_line = differences[GRID_PIXELS - 1 :: GRID_PIXELS]
    count = len(differences) - len(on_line)
    elsewhere = (differences.sum() - on_line.sum()) / count
    return float((on_line.mean() + ROUNDING) / (elsewhere + ROUNDING))
