"""Diffusion inversion (InvSR): the timesteps at which it calls the network, and its image sizes.

Here lq is the low-quality input image, a quarter of the result's size along each axis.

Source: InvSR, sampler_invsr.py, inference_invsr.py and its StableDiffusionInversionSR pipeline.
"""

from math import ceil

import torch.nn.functional as F
from torch import Tensor

SCALE = 4
"""The only possible factor: the predicted noise has half the size of the input, and must have the size of a
latent, which is an eighth of the result's."""
START_TIMESTEPS = (250, 200, 150, 100)
"""First timesteps for which the published noise predictors were trained."""
DEFAULT_START_TIMESTEP = 200
TIMESTEP_SPACING = 50
LQ_MULTIPLE_PIXELS = 16
"""Sides of the input are padded to a multiple of this: the VAE reduces the 4x larger image by 8, and the
UNet reduces the latent by 8 again."""


def plan_timesteps(sampling_steps: int, start: int | None = None) -> list[int]:
    """Choose the timesteps at which the network is called, as InvSR does for 1 to 5 steps.

    Args:
        sampling_steps: Number of calls, 1 to 5.
        start: The first timestep, one of `START_TIMESTEPS`; None means 200, or 250 for five steps.

    Returns:
        Timesteps from high to low, counted from 1: timestep 200 has index 199 in the model's tables.
        They are multiples of 50, as evenly spaced as possible. If gaps differ, the larger ones come
        first.

    Raises:
        ValueError: If ``start`` is not one of `START_TIMESTEPS`, or if there are fewer multiples of
            50 up to ``start`` than steps.
    """
    if start is None:
        start = (
            DEFAULT_START_TIMESTEP
            if sampling_steps * TIMESTEP_SPACING <= DEFAULT_START_TIMESTEP
            else START_TIMESTEPS[0]
        )
    max_steps = start // TIMESTEP_SPACING
    if start not in START_TIMESTEPS:
        raise ValueError(
            f"expected start to be one of {START_TIMESTEPS}, but found {start}: choose one"
        )
    if not 1 <= sampling_steps <= max_steps:
        raise ValueError(
            f"expected sampling_steps from 1 to {max_steps} with start {start}, but found "
            f"{sampling_steps}: lower sampling_steps, or raise start"
        )
    return [
        start - TIMESTEP_SPACING * ceil(step * max_steps / sampling_steps)
        for step in range(sampling_steps)
    ]


def enlarge_unclamped(lq: Tensor) -> Tensor:
    """Enlarge an image four times without clamping its overshoots at edges, as in InvSR's training.

    Args:
        lq: (B, C, H, W), any float dtype, in [0, 1].

    Returns:
        (B, C, 4 H, 4 W) float32, slightly beyond [0, 1] at edges.

    Source: InvSR enlarges with torch's bicubic filter (a = -0.75). The result differs from that of
        Pillow's filter by up to 0.025.
    """
    return F.interpolate(lq.float(), scale_factor=SCALE, mode="bicubic")
