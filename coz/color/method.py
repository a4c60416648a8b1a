"""Choose a color alignment by name, mix two, or find the best one for each image."""

from typing import Literal, get_args

import torch
from torch import Tensor

from .align import (
    WAVELET_LEVELS,
    adain_align,
    histogram_align,
    measure_low_frequency_distance,
    wavelet_align,
    ycbcr_align,
)

Method = Literal[
    "wavelet", "adain", "none", "ycbcr", "histogram", "hybrid", "best", "ycbcr+wavelet+histogram"
]

METHODS: list[Method] = list(get_args(Method))

BEST_CANDIDATES = METHODS[: METHODS.index("best")]
"""The methods that "best" tries, "none" included."""

HYBRID_WEIGHT = 0.5
"""Weight of adain in hybrid."""


def hybrid_align(
    sr: Tensor,
    reference: Tensor,
    levels: int = WAVELET_LEVELS,
    weight: float = HYBRID_WEIGHT,
) -> Tensor:
    """Return the weighted mean of ``wavelet_align`` and ``adain_align``.

    Args:
        sr: (B, C, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.
        levels: As in ``wavelet_align``.
        weight: Weight of adain, 0 (wavelet alone) to 1 (adain alone).

    Returns:
        (B, C, H, W) float32, not clamped.

    Raises:
        ValueError: If the two shapes differ, ``levels`` is below 1 or ``weight`` not in [0, 1].
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be 0 to 1, got {weight}")
    return torch.lerp(wavelet_align(sr, reference, levels), adain_align(sr, reference), weight)


def ycbcr_wavelet_histogram_align(
    sr: Tensor, reference: Tensor, levels: int = WAVELET_LEVELS
) -> Tensor:
    """Mix 0.3 ``ycbcr_align``, 0.3 ``wavelet_align``, 0.28 ``histogram_align`` and 0.12 ``sr``.

    Args:
        sr: (B, 3, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.
        levels: As in ``wavelet_align``.

    Returns:
        (B, 3, H, W) float32 in [0, 1].

    Raises:
        ValueError: If the two shapes differ, there are not 3 channels or ``levels`` is below 1.

    Source: the InvSR study (GitHub dgm-2025.2-g4), util_color_fix.py, where it is called hybrid.
    Deviation: the histogram alignment is exact; the study sorts values into 256 levels.
    """
    mixed = ycbcr_align(sr, reference).clamp_(0, 1)
    mixed.add_(wavelet_align(sr, reference, levels).clamp_(0, 1)).mul_(0.3)
    return mixed.add_(histogram_align(sr, reference), alpha=0.28).add_(sr, alpha=0.12)


def best_align(
    sr: Tensor,
    reference: Tensor,
    levels: int = WAVELET_LEVELS,
    weight: float = HYBRID_WEIGHT,
) -> tuple[Tensor, list[Method]]:
    """Try all ``BEST_CANDIDATES`` and keep the best result for each image.

    The best result has the smallest ``measure_low_frequency_distance`` after clamping to [0, 1]. The
    distance always uses ``WAVELET_LEVELS``, so detail finer than about 32 pixels does not count.
    Among equal results the method that comes first in ``METHODS`` is chosen.

    Args:
        sr: (B, 3, H, W), any float dtype, values in [0, 1].
        reference: same shape as ``sr``.
        levels: As in ``wavelet_align``.
        weight: As in ``hybrid_align``.

    Returns:
        (B, 3, H, W) float32, not clamped, and the method of each image.

    Raises:
        ValueError: If one of the methods raises it.
    """
    best = torch.empty(sr.shape, device=sr.device)
    least = torch.full((len(sr),), torch.inf, device=sr.device)
    chosen = torch.full((len(sr),), METHODS.index("none"), device=sr.device)
    for number, method in enumerate(BEST_CANDIDATES):
        fixed = color_align(method, sr, reference, levels, weight)
        distances = measure_low_frequency_distance(fixed.clamp(0, 1), reference)
        is_nearer = distances < least  # stays a tensor: a Python ``if`` would wait for the GPU
        least = torch.where(is_nearer, distances, least)
        chosen = torch.where(is_nearer, number, chosen)
        torch.where(is_nearer[:, None, None, None], fixed, best, out=best)
    return best, [METHODS[number] for number in chosen.cpu().numpy().tolist()]


def color_align(
    method: Method,
    sr: Tensor,
    reference: Tensor,
    levels: int = WAVELET_LEVELS,
    weight: float = HYBRID_WEIGHT,
) -> Tensor:
    """Give ``sr`` the colors of ``reference`` by the named method.

    Args:
        method: One of ``METHODS``; "none" changes nothing.
        sr: (B, C, H, W), any float dtype, values in [0, 1]; C is 3 for "ycbcr", "best" and
            "ycbcr+wavelet+histogram".
        reference: same shape as ``sr``.
        levels: For all but "adain", "none", "ycbcr" and "histogram": as in ``wavelet_align``.
        weight: For "hybrid" and "best": as in ``hybrid_align``.

    Returns:
        (B, C, H, W) float32, not clamped; for "none" it may share the memory of ``sr``.

    Raises:
        ValueError: If ``method`` is unknown, or the method raises it.
    """
    match method:
        case "wavelet":
            return wavelet_align(sr, reference, levels)
        case "adain":
            return adain_align(sr, reference)
        case "none":
            return sr.float()
        case "ycbcr":
            return ycbcr_align(sr, reference)
        case "histogram":
            return histogram_align(sr, reference)
        case "hybrid":
            return hybrid_align(sr, reference, levels, weight)
        case "best":
            return best_align(sr, reference, levels, weight)[0]
        case "ycbcr+wavelet+histogram":
            return ycbcr_wavelet_histogram_align(sr, reference, levels)
        case _:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method}")
