"""Blur kernels of Real-ESRGAN's degradation.

Xintao Wang et al.: "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
arXiv 2107.10833. Source of the formulas: BasicSR basicsr/data/degradations.py.
"""

from math import cos, pi, sin
from typing import Literal

import torch
from torch import Tensor

Shape = Literal["gaussian", "generalized", "plateau"]


def make_sinc_kernel(cutoff: float, size: int) -> Tensor:
    """Make the kernel of an ideal low-pass filter, which rings beside edges.

    Args:
        cutoff: The lowest frequency that is removed, in radians per pixel, 0 to pi.
        size: Side in pixels, an odd number.

    Returns:
        (size, size) float32 with the sum 1.
    """
    x, y = _make_grid(size)
    radius = torch.hypot(x, y)
    radius[size // 2, size // 2] = 1  # not 0, because the next line divides by it
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * pi)
    return _normalize(kernel)


def make_bell_kernel(
    shape: Shape, size: int, sigma_x: float, sigma_y: float, angle: float = 0, beta: float = 1
) -> Tensor:
    """Make a kernel whose values fall with q, the squared distance from the middle in sigmas.

    Args:
        shape: "gaussian", exp(-q / 2); "generalized", exp(-q ** beta / 2); or "plateau",
            1 / (1 + q ** beta).
        size: Side in pixels, an odd number.
        sigma_x: Width in pixels along the first axis.
        sigma_y: Width in pixels along the second axis.
        angle: Angle in radians from the row to the first axis.
        beta: Exponent of q; not used by "gaussian".

    Returns:
        (size, size) float32 with the sum 1.
    """
    x, y = _make_grid(size)
    along = (cos(angle) * x + sin(angle) * y) / sigma_x
    across = (cos(angle) * y - sin(angle) * x) / sigma_y
    q = along**2 + across**2
    if shape == "gaussian":
        return _normalize(torch.exp(-q / 2))
    if shape == "generalized":
        return _normalize(torch.exp(-(q**beta) / 2))
    return _normalize(1 / (1 + q**beta))


def _make_grid(size: int) -> tuple[Tensor, Tensor]:
    """Return x and y of each pixel, counted from the middle."""
    line = torch.arange(size, dtype=torch.float64) - size // 2
    return line.expand(size, size), line[:, None].expand(size, size)


def _normalize(kernel: Tensor) -> Tensor:
    return (kernel / kernel.sum()).float()
