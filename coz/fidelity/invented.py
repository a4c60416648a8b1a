"""Measure what a super-resolved image shows that a reference does not hold.

The reference is the source or the input of a step, in both cases resized to the size of the result.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..resample import require_same_shape
from .banded_resize import resize_banded
from .metrics import split_rows
from .pending_figure import PendingFigure, read_figures

CELLS_PER_SHORT_SIDE = 128
"""Number of cells along the short side of the coarse grid in which ``map_invented`` measures variances."""

MIN_CELL_PIXELS = 4
"""Minimum side of a cell, in pixels."""

VISIBLE_DEVIATION = 4 / 255
"""Local standard deviation at which new structure begins to be visible; weaker structure counts little."""

FLAT_VARIANCE = 1e-10
"""Variance that float32 rounding can cause: an image with less is flat."""

ROUNDING_VARIANCE = 1 / 255**2 / 12
"""Variance that rounding to eight bits adds. In an enlarged photograph it is most of the variance of the
finest structures."""

INVENTED_THRESHOLD = 0.5**0.5
"""Value of ``map_invented`` from which a pixel counts as invented: there the new structure is as strong
as that of the reference."""

INVENTED_WORDS = ((0.9, "nearly all"), (0.5, "most"), (0.1, "part"), (0.01, "little"))
"""Minimum share of each description."""

MIN_OCTAVE_SIDE_PIXELS = 4
"""An image with a smaller short side has no further octave."""


class Octave(NamedTuple):
    """The structures of one range of sizes."""

    size: int
    """Smallest size of a light or dark spot, in pixels; the largest is twice as large."""
    invented: float
    """Share of their energy that the reference does not hold, 0 to 1."""
    energy: float
    """Share of the image's energy that they have, 0 to 1."""


def measure_invented_energy(sr: Tensor, reference: Tensor) -> float:
    """Measure the share of an image's energy that is not in the reference.

    Energy is the variance about each channel's mean. The share is 1 - r^2, where r is the
    correlation of the two images over all channels, at least 0. Changes of brightness or contrast
    do not count. If the image is the reference plus uncorrelated detail, the result is the detail's
    share of the variance.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: Of the same shape.

    Returns:
        0 (nothing is invented, or the variance is below ``ROUNDING_VARIANCE``) to 1 (everything is).

    Raises:
        ValueError: If the shapes differ.
    """
    return read_figures(start_measuring_invented_energy(sr, reference))[0]


def start_measuring_invented_energy(sr: Tensor, reference: Tensor) -> PendingFigure:
    """Start to compute ``measure_invented_energy``; ``read_figures`` reads the result from the device."""
    require_same_shape(sr, reference, "the image and its enlarged source")
    moments = _start_computing_moments(sr.float(), reference.float())

    def finish(values: list[float]) -> float:
        energy, known, shared = moments.finish(values)
        # On a flat image a network leaves invisible noise, hundredths of a level of 255.
        return 0.0 if energy < ROUNDING_VARIANCE else _compute_invented_share(energy, known, shared)

    return moments._replace(finish=finish)


def measure_octaves(sr: Tensor, reference: Tensor) -> list[Octave]:
    """Measure the invented share of the energy separately for each size of structure, finest first.

    Both images are split into bands: a band is what is lost when an image is halved (bicubic) and
    doubled again. The rounding to eight bits does not count as invented (``ROUNDING_VARIANCE``).

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: Of the same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    require_same_shape(sr, reference, "the image and its enlarged source")
    sr, reference = sr.float(), reference.float()
    moments = [_start_computing_moments(sr, sr)]
    while min(sr.shape[-2:]) >= MIN_OCTAVE_SIDE_PIXELS:
        height, width = sr.shape[-2:]
        halves = [resize_banded(x, (height + 1) // 2, (width + 1) // 2) for x in (sr, reference)]
        details = [
            x - resize_banded(half, height, width)
            for x, half in zip((sr, reference), halves, strict=True)
        ]
        moments.append(_start_computing_moments(*details))
        sr, reference = halves
    (total, *_), *octaves = read_figures(*moments)
    return [
        Octave(
            2**k,
            _compute_invented_share(energy - ROUNDING_VARIANCE, known, shared),
            min(energy / total, 1.0) if total >= FLAT_VARIANCE else 0.0,
        )
        for k, (energy, known, shared) in enumerate(octaves)
    ]


def map_invented(sr: Tensor, reference: Tensor) -> Tensor:
    """Map where an image shows what the reference does not hold.

    The value is sqrt(new / (new + known)), where new is the local variance of ``sr - reference``
    and known that of ``reference``, both blurred over about 1/40 of the image. It goes to 0 where
    new is hardly visible (``VISIBLE_DEVIATION``).

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: Of the same shape.

    Returns:
        (B, 1, H, W) float32: 0 (the reference holds it) to 1 (invented).

    Raises:
        ValueError: If the shapes differ.
    """
    require_same_shape(sr, reference, "the image and its enlarged source")
    reference = reference.float()
    new, known = _compute_local_variance(sr.float() - reference), _compute_local_variance(reference)
    height, width = sr.shape[-2:]
    return resize_banded((new / (new + known + VISIBLE_DEVIATION**2)).sqrt(), height, width).clamp(
        0, 1
    )


def map_disagreement(results: Sequence[Tensor]) -> Tensor:
    """Map where several images of the same view differ from each other.

    Args:
        results: Each (B, C, H, W), any float dtype, values in [0, 1].

    Returns:
        (B, 1, H, W) float32: the standard deviation across the images, as the root mean square of
        the channels, 0 to 0.5. It is 0 for one image.

    Raises:
        ValueError: If ``results`` is empty or the shapes differ.
    """
    if not results or any(x.shape != results[0].shape for x in results):
        sizes = ", ".join(f"{x.shape[-1]} x {x.shape[-2]}" for x in results)
        raise ValueError(f"the images to compare must have the same size, got {sizes or 'none'}")
    mean = torch.zeros_like(results[0], dtype=torch.float32)
    for x in results:
        mean += x.float() / len(results)
    spread = torch.zeros_like(mean)
    for x in results:
        spread += (x.float() - mean).square()
    return (spread / len(results)).mean(1, keepdim=True).sqrt()


def format_percent(share: float) -> str:
    """Format a share for display: 12 %, with one decimal below ten."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %"


def measure_invented_area(heat: Tensor) -> float:
    """Return the share of a ``map_invented`` map that counts as invented (``INVENTED_THRESHOLD``)."""
    return float((heat >= INVENTED_THRESHOLD).float().mean())


def describe_invented(share: float) -> str:
    """Describe in words how much of an image's area is invented, with the percent in brackets."""
    part = next((words for least, words in INVENTED_WORDS if share >= least), "almost nothing")
    return f"{part} of its area is invented ({format_percent(share)})"


def _start_computing_moments(a: Tensor, b: Tensor) -> PendingFigure:
    """Start to compute the variances of a and b and their covariance.

    The mean of each plane is subtracted first.
    """
    mean_a, mean_b = a.mean((-2, -1), keepdim=True), b.mean((-2, -1), keepdim=True)
    sums: list[Tensor] = []
    for x, y in zip(split_rows(a), split_rows(b), strict=True):
        x, y = x - mean_a, y - mean_b
        sums += [(x * x).sum(), (y * y).sum(), (x * y).sum()]
    count = a.numel()

    def finish(values: list[float]) -> tuple[float, float, float]:
        means = [value / count for value in values]
        return sum(means[::3]), sum(means[1::3]), sum(means[2::3])

    return PendingFigure(torch.stack(sums), finish)


def _compute_invented_share(energy: float, known: float, shared: float) -> float:
    """Compute 1 - r^2 from the variances of two images and their covariance."""
    if energy < FLAT_VARIANCE:
        return 0.0
    return (
        min(max(1 - max(shared, 0.0) ** 2 / (energy * known), 0.0), 1.0)
        if known > FLAT_VARIANCE
        else 1.0
    )


def _compute_local_variance(image: Tensor) -> Tensor:
    """Compute the variance around each cell of a coarse grid, averaged over channels: (B, 1, h, w)."""
    height, width = image.shape[-2:]
    cell = max(min(height, width) / CELLS_PER_SHORT_SIDE, MIN_CELL_PIXELS)
    size = max(round(height / cell), 1), max(round(width / cell), 1)
    mean, square = (_blur_grid(resize_banded(x, *size, "area")) for x in (image, image.square()))
    return (square - mean.square()).clamp(min=0).mean(1, keepdim=True)


def _blur_grid(grid: Tensor) -> Tensor:
    """Blur with (1, 2, 3, 2, 1) / 9 along both axes, leaving out what lies beyond an edge."""
    for _ in range(2):
        grid = F.avg_pool2d(grid, 3, 1, 1, count_include_pad=False)
    return grid
