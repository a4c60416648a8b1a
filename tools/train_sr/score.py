"""Load a no-reference score of images as a loss."""

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor

REPORTED_SCORES = ("niqe", "musiq", "maniqa", "clipiqa")
"""Scores that tools/evaluate reports. They say nothing about a network that was trained on them."""

CHECKED_SIDE = 256
"""Side of the images on which the gradient is checked, in pixels."""

Score = Callable[[Tensor], Tensor]


def load_score(name: str, device: torch.device) -> Score:
    """Load a score, and refuse one that has no gradient or that tools/evaluate reports.

    Args:
        name: "module:function" that maps images (B, 3, H, W) in [0, 1] to (B,); more is better.
        device: Where the images are.
    """
    module, _, function = name.partition(":")
    try:
        score = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"score: {name} cannot be loaded ({error}): give a module:function"
        ) from error
    # pyiqa's metrics have their name in metric_name.
    known_as = f"{name} {getattr(score, 'metric_name', '')}".lower()
    if found := [reported for reported in REPORTED_SCORES if reported in known_as]:
        raise ValueError(
            f"score: {name} is {found[0].upper()}, which tools/evaluate reports. A network that was trained "
            "on it cannot be measured by it: take another, such as TOPIQ-NR"
        )
    noise = torch.rand(1, 3, CHECKED_SIDE, CHECKED_SIDE, generator=torch.Generator().manual_seed(0))
    image = noise.to(device).requires_grad_()
    value = score(image)
    if not isinstance(value, Tensor) or not value.requires_grad:
        raise ValueError(
            f"score: {name} must give a tensor with a gradient: remove no_grad, detach, item and round"
        )
    (gradient,) = torch.autograd.grad(value.sum(), image, allow_unused=True)
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise ValueError(
            f"score: the gradient of {name} is zero or not finite, so nothing can be learned from it"
        )
    return score
