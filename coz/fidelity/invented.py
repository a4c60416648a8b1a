"""What a super-resolved picture shows that its source does not hold."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..resample import require_same_shape
from .banded_resize import resized
from .metrics import split_rows

CELLS = 128
"""Places along a map's short side."""

LEAST_CELL = 4
"""Pixels of a place's side."""

VISIBLE_DEVIATION = 4 / 255
"""Standard deviation of an unsharp structure that is hard to see, and counts for little."""

FLAT = 1e-10
"""Variance that is float32's rounding."""

ROUNDING = 1 / 255**2 / 12
"""Variance that eight bits add to a picture: most of what an enlarged photograph has of its finest
structures."""

INVENTED_HEAT = 0.5**0.5
"""Value of ``invented_map`` from which a place counts as invented: there the new structure is as strong
as what the source holds."""

INVENTED_WORDS = ((0.9, "nearly all"), (0.5, "most"), (0.1, "part"), (0.01, "little"))
"""From which share on what is said of it."""

LEAST_BAND = 4
"""Pixels of the short side below which a picture has no further octave."""


class Octave(NamedTuple):
    """The structures of one range of sizes."""

    size: int
    """Pixels of a light or dark spot: from this to twice this."""
    invented: float
    """Share of their energy that the source does not hold, 0 to 1."""
    energy: float
    """Their share of the picture's own energy, 0 to 1."""


def invented(sr: Tensor, reference: Tensor) -> float:
    """The share of a picture's energy that is not in its enlarged source.

    Energy is variance: squares about each channel's mean. The share is 1 - r^2, where r is the
    correlation of the two over all channels (not below 0): what no brighter, darker or weaker form
    of the source explains. Of detail that is independent of the source it is the detail's part of
    the picture's variance.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: the source enlarged to the same shape.

    Returns:
        0 (nothing; also of a picture whose variance is below ``ROUNDING``) to 1 (all of it).

    Raises:
        ValueError: If the shapes differ.
    """
    require_same_shape(sr, reference, "the picture and its enlarged source")
    energy, known, shared = _moments(sr.float(), reference.float())
    # Of a flat picture a network leaves hundredths of a level of 255, which no one can see.
    return 0.0 if energy < ROUNDING else _share(energy, known, shared)


def octaves(sr: Tensor, reference: Tensor) -> list[Octave]:
    """``invented`` for each size of structure by itself, from the finest on.

    Both pictures are taken apart alike: a band is what is lost when the picture is halved (bicubic)
    and doubled again. What eight bits round away is not invented (``ROUNDING``).

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: the source enlarged to the same shape.

    Raises:
        ValueError: If the shapes differ.
    """
    require_same_shape(sr, reference, "the picture and its enlarged source")
    sr, reference = sr.float(), reference.float()
    total = _moments(sr, sr)[0]
    bands: list[Octave] = []
    size = 1
    while min(sr.shape[-2:]) >= LEAST_BAND:
        height, width = sr.shape[-2:]
        halves = [resized(x, (height + 1) // 2, (width + 1) // 2) for x in (sr, reference)]
        details = [
            x - resized(half, height, width)
            for x, half in zip((sr, reference), halves, strict=True)
        ]
        energy, known, shared = _moments(*details)
        part = energy / total if total >= FLAT else 0.0
        bands.append(Octave(size, _share(energy - ROUNDING, known, shared), min(part, 1.0)))
        sr, reference = halves
        size *= 2
    return bands


def invented_map(sr: Tensor, reference: Tensor) -> Tensor:
    """Where a picture shows what its enlarged source does not hold.

    Around each place (a blur of about 1/40 of the picture), the root of a share of variance: that
    of ``sr`` less ``reference``, over it and that of ``reference`` together. Where the first is
    hardly visible (``VISIBLE_DEVIATION``) the share goes to 0.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: the source enlarged to the same shape.

    Returns:
        (B, 1, H, W) float32: 0 (the source holds it) to 1 (invented).

    Raises:
        ValueError: If the shapes differ.
    """
    require_same_shape(sr, reference, "the picture and its enlarged source")
    reference = reference.float()
    new, known = _variance(sr.float() - reference), _variance(reference)
    height, width = sr.shape[-2:]
    return resized((new / (new + known + VISIBLE_DEVIATION**2)).sqrt(), height, width).clamp(0, 1)


def disagreement(results: Sequence[Tensor]) -> Tensor:
    """Where several pictures of the same view differ from one another.

    Args:
        results: each (B, C, H, W), any float dtype, values in [0, 1].

    Returns:
        (B, 1, H, W) float32: the standard deviation across the pictures, root mean square of the
        channels. 0 to 0.5; 0 for one picture.

    Raises:
        ValueError: If there is none or the shapes differ.
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


def percent(share: float) -> str:
    """For a person: 12 %, and one decimal below ten."""
    value = 100 * share
    return f"{value:.0f} %" if value >= 9.95 else f"{value:.1f} %"


def measure_invented_area(heat: Tensor) -> float:
    """Return the share of an ``invented_map``'s area that counts as invented (``INVENTED_HEAT``)."""
    return float((heat >= INVENTED_HEAT).float().mean())


def describe_invented(share: float) -> str:
    """Say in words how much of a picture's area is invented, with the percent in brackets."""
    part = next((words for least, words in INVENTED_WORDS if share >= least), "almost nothing")
    return f"{part} of its area is invented ({percent(share)})"


def _moments(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    """Means of a a, b b and a b about each plane's mean."""
    mean_a, mean_b = a.mean((-2, -1), keepdim=True), b.mean((-2, -1), keepdim=True)
    sums: list[Tensor] = []
    for x, y in zip(split_rows(a), split_rows(b), strict=True):
        x, y = x - mean_a, y - mean_b
        sums += [(x * x).sum(), (y * y).sum(), (x * y).sum()]
    means = [
        value / a.numel() for value in torch.stack(sums).tolist()
    ]  # read from the device at once
    return sum(means[::3]), sum(means[1::3]), sum(means[2::3])


def _share(energy: float, known: float, shared: float) -> float:
    if energy < FLAT:
        return 0.0
    return min(max(1 - max(shared, 0.0) ** 2 / (energy * known), 0.0), 1.0) if known > FLAT else 1.0


def _variance(image: Tensor) -> Tensor:
    """Around each place of a coarse grid, the mean of the channels: (B, 1, h, w)."""
    height, width = image.shape[-2:]
    cell = max(min(height, width) / CELLS, LEAST_CELL)
    size = max(round(height / cell), 1), max(round(width / cell), 1)
    mean, square = (_blur_grid(resized(x, *size, "area")) for x in (image, image.square()))
    return (square - mean.square()).clamp(min=0).mean(1, keepdim=True)


def _blur_grid(grid: Tensor) -> Tensor:
    """With (1, 2, 3, 2, 1) / 9 along both axes; what lies beyond an edge does not count."""
    for _ in range(2):
        grid = F.avg_pool2d(grid, 3, 1, 1, count_include_pad=False)
    return grid
