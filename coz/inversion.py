"""Diffusion inversion (InvSR): timesteps and image sizes of a chain of denoising steps.

Source: InvSR, sampler_invsr.py, inference_invsr.py and its StableDiffusionInversionSR pipeline.
"""

from math import ceil

import torch.nn.functional as F
from torch import Tensor

SCALE = 4
"""The noise predictor halves its image, and a latent is an eighth of the result: only 4x works."""
STARTS = (250, 200, 150, 100)
"""The timesteps from which the published noise predictors were trained to start."""
USUAL_START = 200
TIMESTEP_SPACING = 50
LQ_MULTIPLE_PIXELS = 16
"""Sides of the small image are multiples of this: the VAE reduces its enlargement by 8, the UNet by 8
more."""


def plan_timesteps(sampling_steps: int, start: int | None = None) -> list[int]:
    """Choose the timesteps at which the network is called, as InvSR does for 1 to 5 steps.

    Args:
        sampling_steps: Number of calls, 1 to 5.
        start: One of `STARTS`; None starts at 200, or at 250 for five steps.

    Returns:
        Timesteps counted from 1, falling: 200 is index 199. They are multiples of 50 as evenly
        spaced as possible, the larger gaps first.

    Raises:
        ValueError: If there are fewer multiples of 50 up to ``start`` than steps.
    """
    if start is None:
        start = USUAL_START if sampling_steps * TIMESTEP_SPACING <= USUAL_START else STARTS[0]
    possible = start // TIMESTEP_SPACING
    if start not in STARTS:
        raise ValueError(f"expected start to be one of {STARTS}, but found {start}: choose one")
    if not 1 <= sampling_steps <= possible:
        raise ValueError(
            f"expected sampling_steps from 1 to {possible} with start {start}, but found "
            f"{sampling_steps}: lower sampling_steps, or raise start"
        )
    return [
        start - TIMESTEP_SPACING * ceil(step * possible / sampling_steps)
        for step in range(sampling_steps)
    ]


def enlarge_unclamped(lq: Tensor) -> Tensor:
    """Enlarge an image four times; overshoots at edges stay, as in InvSR's training.

    Args:
        lq: (B, C, H, W) in [0, 1].

    Returns:
        (B, C, 4 H, 4 W), slightly beyond [0, 1] at edges.

    Source: torch's bicubic filter (a = -0.75). It differs from Pillow's by up to 0.025.
    """
    return F.interpolate(lq.float(), scale_factor=SCALE, mode="bicubic")
