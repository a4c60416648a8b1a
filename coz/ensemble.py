"""Self-ensemble: the mean of what a network makes of a picture in all its flips and rotations."""

from collections.abc import Callable
from itertools import product

from torch import Tensor

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""Dimensions to reverse; each before and after rows and columns are exchanged makes eight."""


def self_ensemble(upscale: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """The mean of ``upscale`` over the four rotations of ``image`` and their mirror images.

    Each result is turned back before it is added, so that the mean of a turned image is the turned
    mean, to rounding. Hence the self-ensemble of a self-ensemble is the same once more.

    Args:
        upscale: (B, C, H, W) to (B, D, H * s, W * s) for any factor s. Called eight times, four of
            them with (B, C, W, H), always with a contiguous copy.
        image: (B, C, H, W) in the dtype and range that ``upscale`` takes. Not modified.

    Returns:
        (B, D, H * s, W * s) in the dtype of the results; added up in float32.

    Source: Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super
    resolution", CVPR 2016, where it is called enhanced prediction.
    """

    def turned(flips: tuple[int, ...], transposed: bool) -> Tensor:
        turn = image.transpose(-2, -1) if transposed else image
        result = upscale(turn.flip(flips).contiguous()).flip(flips)
        return result.transpose(-2, -1) if transposed else result

    first, *others = product(FLIPS, (False, True))
    result = turned(*first)
    total = result.float()
    for turn in others:
        total += turned(*turn)
    return total.div_(len(others) + 1).to(result.dtype)
