"""Self-ensemble: average a network's results for all flips and rotations of an image."""

from collections.abc import Callable
from itertools import product

from torch import Tensor

FLIPS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))
"""Dimensions to reverse. With and without a transposition they give all eight orientations."""


def self_ensemble(upscale: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Average ``upscale`` over the four rotations of ``image`` and their mirror images.

    Each result is turned back before it is added. Turning the image therefore turns the mean (up to
    rounding), and a self-ensemble of a self-ensemble changes nothing.

    Args:
        upscale: Maps (B, C, H, W) to (B, D, H * s, W * s) for any factor s. It is called eight
            times, four of them with (B, C, W, H), always with a contiguous copy.
        image: (B, C, H, W) in the dtype and range of ``upscale``. It is not modified.

    Returns:
        (B, D, H * s, W * s) in the dtype of the results, averaged in float32.

    Source: Timofte, Rothe and Van Gool, "Seven ways to improve example-based single image super
    resolution", CVPR 2016, where it is called enhanced prediction.
    """

    def upscale_turned(flips: tuple[int, ...], transposed: bool) -> Tensor:
        turn = image.transpose(-2, -1) if transposed else image
        result = upscale(turn.flip(flips).contiguous()).flip(flips)
        return result.transpose(-2, -1) if transposed else result

    first, *others = product(FLIPS, (False, True))
    result = upscale_turned(*first)
    total = result.float()
    for turn in others:
        total += upscale_turned(*turn)
    return total.div_(len(others) + 1).to(result.dtype)
