"""Adapt the sampling of a view to how complex it is.

Source: the InvSR study (dgm-2025.2-g4), util_adaptive.py and util_enhancement.py.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..color.align import luma

SIMPLE, COMPLEX = 0.3, 0.6
"""Views below the first score are simple, views from the second on are complex."""

LAST_TIMESTEP = 20
"""The last timestep is at least this."""

MAX_GUIDANCE = 10

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
LOCAL_PIXELS = 5
"""Side of the squares in which the local variance is computed."""


def score_complexity(image: Tensor) -> list[float]:
    """Score how complex each image of a batch is: contrast, edges, local variance and entropy.

    Args:
        image: (B, 3, H, W), any float dtype, in [0, 1].

    Returns:
        B scores from 0 (flat) to 1.

    Deviation: edge pixels are repeated around the image. The source pads with zeros, so that a flat gray
    image has edges along its border and scores 0.318.
    """
    light = luma(image)
    slope = compute_gradient(light)
    variance = average_locally((light - average_locally(light)).square())
    measures = torch.stack(
        [
            0.25 * (10 * light.flatten(1).var(1, correction=0)).clamp(max=1),
            0.30 * (5 * slope.mean((1, 2, 3))).clamp(max=1),
            0.25 * (20 * variance.mean((1, 2, 3))).clamp(max=1),
            0.20 * torch.stack([_compute_entropy(view) for view in light]) / 8,
        ]
    )
    scores: list[float] = measures.sum(0).cpu().numpy().tolist()
    return scores


def compute_gradient(light: Tensor) -> Tensor:
    """Compute the length of Sobel's gradient of (B, 1, H, W), which a step from 0 to 1 raises to 4."""
    kernel = light.new_tensor([SOBEL, tuple(zip(*SOBEL, strict=True))]).unsqueeze(1)
    slopes = F.conv2d(F.pad(light, (1, 1, 1, 1), mode="replicate"), kernel)
    return slopes.square().sum(1, keepdim=True).sqrt()


def average_locally(light: Tensor) -> Tensor:
    """Average (B, 1, H, W) over 5 x 5 pixels; edge pixels are repeated."""
    edge = LOCAL_PIXELS // 2
    return F.avg_pool2d(F.pad(light, (edge,) * 4, mode="replicate"), LOCAL_PIXELS, 1)


def _compute_entropy(light: Tensor) -> Tensor:
    """Compute the entropy in bits of an image's 256 levels."""
    counts = (light * 256).long().clamp(0, 255).flatten().bincount(minlength=256)
    share = counts / light.numel()
    return -torch.xlogy(share, share).sum() / torch.tensor(2.0).log()


def adapt_timesteps(timesteps: list[int], complexity: float) -> list[int]:
    """Spread the timesteps evenly, with one more for a medium view and two more for a complex one.

    The first timestep stays: the noise predictor is trained for it.
    """
    count = len(timesteps) + (complexity >= SIMPLE) + (complexity >= COMPLEX)
    first, last = timesteps[0], max(LAST_TIMESTEP, timesteps[-1] if len(timesteps) > 1 else 0)
    gap = (first - last) / max(1, count - 1)
    return [int(first - gap * step) for step in range(count)]


def compute_emphasis(complexity: float) -> float:
    """Compute the factor of guidance and denoise: 0.8 to 0.9 for simple views, up to 1.3 for complex."""
    if complexity < SIMPLE:
        return 0.8 + complexity / 3
    return 1 + 0.3 * max(0.0, complexity - COMPLEX) / (1 - COMPLEX)


def adapt_denoise(views: Tensor, denoise: float) -> list[tuple[Tensor, float]]:
    """Raise the denoise of complex views (B, 3, H, W) and lower that of simple ones, up to 1.

    Returns:
        B pairs: a view (1, 3, H, W) and its denoise.

    Raises:
        ValueError: If ``denoise`` is not in [0, 1].
    """
    if not 0 <= denoise <= 1:
        raise ValueError(f"denoise must be 0 to 1, got {denoise:g}")
    emphases = map(compute_emphasis, score_complexity(views))
    return [(views[i : i + 1], min(denoise * each, 1.0)) for i, each in enumerate(emphases)]


def adapt_guidance(cfg: float, complexity: float) -> float:
    """Raise the guidance of complex views and lower that of simple ones, within 1 to 10."""
    return min(max(cfg * compute_emphasis(complexity), 1.0), MAX_GUIDANCE)
