"""A map laid over a picture as heat."""

import torch
from torch import Tensor

RAMP = (
    (0.08, 0.05, 0.25),
    (0.34, 0.06, 0.43),
    (0.58, 0.15, 0.40),
    (0.80, 0.27, 0.28),
    (0.96, 0.49, 0.12),
    (0.98, 0.78, 0.20),
    (0.99, 1.00, 0.64),
)
"""Red, green, blue from cold to hot, in even steps of lightness: dark violet, red, orange, yellow."""

DIM = 0.6
"""Brightness that is left to the picture under the heat."""

OPAQUE = 0.75
"""Most that the heat hides of the picture."""

LUMA = (0.2126, 0.7152, 0.0722)
"""Of Rec. 709."""


def ramp(heat: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1] as colours (B, 3, H, W): dark violet, red, orange, yellow."""
    colors = torch.tensor(RAMP).to(heat)
    place = heat[:, 0].clamp(0, 1) * (len(RAMP) - 1)
    below = place.long().clamp(max=len(RAMP) - 2)
    mixed = torch.lerp(colors[below], colors[below + 1], (place - below)[..., None])
    return mixed.movedim(-1, 1)


def lay_over(picture: Tensor, heat: Tensor) -> Tensor:
    """The picture in grey and dimmed, its hot places in the colours of ``ramp``.

    Args:
        picture: (B, 3, H, W) in [0, 1].
        heat: (B, 1, H, W) in [0, 1]; 0 leaves the picture grey.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    weights = torch.tensor(LUMA).to(picture.device)[:, None, None]
    grey = (picture.float() * weights).sum(1, keepdim=True) * DIM
    # Light and dark of the picture stay to be seen in the hottest place.
    return torch.lerp(grey.expand_as(picture), ramp(heat), OPAQUE * heat.clamp(0, 1))
