"""Adapt the sampling of a view to its complexity, the amount of detail in it.

``tiles.complexity.rate_complexity`` rates the parts of an image by other measures, for the plan of tiles.

Source: the InvSR study (GitHub dgm-2025.2-g4), util_adaptive.py and util_enhancement.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..color.align import compute_luma

MIN_MEDIUM_SCORE, MIN_COMPLEX_SCORE = 0.3, 0.6
"""Views with a score below the first limit are simple, and views from the second limit on are complex."""

MIN_LAST_TIMESTEP = 20
"""Lower limit of the last timestep."""

MAX_ADAPTED_GUIDANCE = 10
"""Upper limit of the adapted guidance scale (cfg)."""

SOBEL_KERNEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
LOCAL_SIDE_PIXELS = 5
"""Side of the square around each pixel in which the local variance is computed."""


def score_complexity(image: Tensor) -> list[float]:
    """Score the complexity of each image of a batch: its contrast, edges, local variance and entropy.

    The four measures are scaled to at most 1 and weighted as in the study.

    Args:
        image: (B, 3, H, W), any float dtype, in [0, 1].

    Returns:
        B scores from 0 (flat) to 1.

    Deviation: edge pixels are repeated around the image. The study pads with zeros, which adds edges
        along the border, so that a flat gray image scores 0.318.
    """
    luma = compute_luma(image)
    slope = compute_gradient(luma)
    variance = average_locally((luma - average_locally(luma)).square())
    measures = torch.stack(
        [
            0.25 * (10 * luma.flatten(1).var(1, correction=0)).clamp(max=1),
            0.30 * (5 * slope.mean((1, 2, 3))).clamp(max=1),
            0.25 * (20 * variance.mean((1, 2, 3))).clamp(max=1),
            0.20 * torch.stack([_compute_entropy(view) for view in luma]) / 8,
        ]
    )
    scores: list[float] = measures.sum(0).cpu().numpy().tolist()
    return scores


def compute_gradient(luma: Tensor) -> Tensor:
    """Compute the length of the Sobel gradient of images (B, 1, H, W).

    Returns:
        (B, 1, H, W), 4 at a vertical edge between values 0 and 1. The image is padded with its border pixels.
    """
    kernel = luma.new_tensor([SOBEL_KERNEL, tuple(zip(*SOBEL_KERNEL, strict=True))]).unsqueeze(1)
    slopes = F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), kernel)
    return slopes.square().sum(1, keepdim=True).sqrt()


def average_locally(luma: Tensor) -> Tensor:
    """Average images (B, 1, H, W) over the 5 x 5 pixels around each pixel; edge pixels are repeated."""
    edge = LOCAL_SIDE_PIXELS // 2
    return F.avg_pool2d(F.pad(luma, (edge,) * 4, mode="replicate"), LOCAL_SIDE_PIXELS, 1)


def _compute_entropy(luma: Tensor) -> Tensor:
    """Compute the entropy, in bits, of the 256 levels of an image."""
    counts = (luma * 256).long().clamp(0, 255).flatten().bincount(minlength=256)
    share = counts / luma.numel()
    return -torch.xlogy(share, share).sum() / torch.tensor(2.0).log()


def adapt_timesteps(timesteps: list[int], complexity: float) -> list[int]:
    """Spread the timesteps evenly; add one for a medium view and two for a complex one.

    The first timestep stays, because the noise predictor is trained for it.

    Args:
        timesteps: From high to low, as ``inversion.plan_timesteps`` returns them.
        complexity: The view's score from ``score_complexity``.
    """
    count = len(timesteps) + (complexity >= MIN_MEDIUM_SCORE) + (complexity >= MIN_COMPLEX_SCORE)
    first, last = timesteps[0], max(MIN_LAST_TIMESTEP, timesteps[-1] if len(timesteps) > 1 else 0)
    gap = (first - last) / max(1, count - 1)
    return [int(first - gap * step) for step in range(count)]


def compute_detail_factor(complexity: float) -> float:
    """Compute the factor by which guidance and denoise are multiplied.

    It is 0.8 to 0.9 for a simple view, 1 for a medium one, and 1 to 1.3 for a complex one.
    """
    if complexity < MIN_MEDIUM_SCORE:
        return 0.8 + complexity / 3
    return 1 + 0.3 * max(0.0, complexity - MIN_COMPLEX_SCORE) / (1 - MIN_COMPLEX_SCORE)


def adapt_denoise(views: Tensor, denoise: float) -> list[tuple[Tensor, float]]:
    """Raise the denoise of complex views and lower that of simple ones.

    Args:
        views: (B, 3, H, W), any float dtype, in [0, 1].
        denoise: Share of the noise schedule that is sampled, 0 to 1.

    Returns:
        B pairs: a view (1, 3, H, W) and its denoise, at most 1.

    Raises:
        ValueError: If ``denoise`` is not in [0, 1].
    """
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise must be 0 to 1, got {denoise:g}")
    factors = map(compute_detail_factor, score_complexity(views))
    return [(views[i : i + 1], min(denoise * factor, 1.0)) for i, factor in enumerate(factors)]


def adapt_guidance(cfg: float, complexity: float) -> float:
    """Raise the guidance scale for a complex view or lower it for a simple one, within 1 to 10."""
    return min(max(cfg * compute_detail_factor(complexity), 1.0), MAX_ADAPTED_GUIDANCE)
