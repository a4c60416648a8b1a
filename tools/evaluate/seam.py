"""How far the lines of a picture's blocks or tiles show."""

from torch import Tensor

GRID = 8
"""Pixels of a VAE's latent (8x); the borders of tiles lie on its lines too."""

ROUNDING = 0.5 / 255
"""Half a level of 8 bits: steps below it are not in the file."""


def seam(image: Tensor) -> float:
    """The mean step across the grid's lines over that between all other neighbours.

    Args:
        image: (1, C, H, W), at least 16 x 16, values in [0, 1].

    Returns:
        Of the worse axis; 1 is none, also where the lines happen to be smoother than the rest.
    """
    return max(_ratio(image), _ratio(image.mT), 1.0)


def _ratio(image: Tensor) -> float:
    steps = image.diff(dim=-1).abs().mean((0, 1, 2))
    # The step at x lies between the pixels x and x + 1; the last of a block is before a line.
    on_line = steps[GRID - 1 :: GRID]
    count = len(steps) - len(on_line)
    elsewhere = (steps.sum() - on_line.sum()) / count
    return float((on_line.mean() + ROUNDING) / (elsewhere + ROUNDING))
