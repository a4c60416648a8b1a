"""Find the target of a zoom from two fractions or a mask, and show it in the target picker."""

from collections.abc import Callable

import torch
from comfy_execution.utils import ExecutionContext, get_executing_context
from torch import Tensor

from ...coz.geometry import Target
from .images import save_preview
from .messages import find_node_on_page, finish_with_notices, give_notice

MAX_MASK_BACKGROUND = 1 / 64
"""If the smallest value of a mask is below this, it counts as background and is subtracted. Load Image
gives opaque pixels 0.00005 (an opaque GIF, BMP or TGA) or 0.004 (a GIF, WebP, BMP or TGA with
transparent pixels)."""

MIN_MASK_RANGE = 1 / 512
"""Half a level of 8 bits: a mask whose values differ by less is the same everywhere."""


def show_in_picker(image: Tensor, target: Target) -> dict[str, list] | None:
    """Return the ui output for the target picker of the running node: the first image of the batch.

    None if the node has no picker on the page: a step of Chain Loop (each would write
    a file), or a node whose ``execute`` another node calls.
    """
    context: ExecutionContext | None = get_executing_context()
    if context is None or context.node_id != find_node_on_page(context.node_id):
        return None
    return {"coz_source": save_preview(image[:1], target)} | finish_with_notices()


def subtract_background(mask: Tensor) -> Tensor:
    """Return a mask (..., H, W) as (batch, H, W) in [0, 1], its background subtracted."""
    mask = mask.reshape(-1, *mask.shape[-2:]).float().clamp(0, 1)
    background = mask.amin((-2, -1), keepdim=True)
    # Summed over a whole image, even 0.004 outweighs a small spot of ones.
    return torch.where(background < MAX_MASK_BACKGROUND, mask - background, mask)


def is_blank(mask: Tensor) -> bool:
    """Whether a mask marks no target: it is the same everywhere and below 1/64."""
    return (
        mask.ndim >= 2
        and mask.numel() > 0
        and bool(subtract_background(mask).amax() < MIN_MASK_RANGE)
    )


def resolve_target(
    center_x: float,
    center_y: float,
    mask: Tensor | None,
    warn: Callable[[str], None] = give_notice,
) -> Target:
    """Return the zoom target: the centroid of the mask, or the two fractions if there is no mask.

    A blank mask is ignored, with a message to ``warn``.
    """
    if mask is None:
        return Target(center_x, center_y)
    if mask.ndim < 2 or 0 in mask.shape:
        raise ValueError(
            "mask must be a mask batch (batch, height, width) with at least one pixel, got shape "
            f"{tuple(mask.shape)}"
        )
    if bad := int((~mask.float().isfinite()).sum()):
        raise ValueError(f"mask holds {bad} values that are NaN or infinite: paint it again")
    if is_blank(mask):
        warn(
            "mask is empty (the same everywhere and below 1/64, as Load Image gives for an image "
            "without transparency): center_x and center_y are the target. To use the mask, paint "
            "the spot to zoom into"
        )
        return Target(center_x, center_y)
    mask = subtract_background(mask).sum(0)
    total = mask.sum()
    height, width = mask.shape
    x = (mask.sum(0) * (torch.arange(width).to(mask) + 0.5)).sum() / total / width
    y = (mask.sum(1) * (torch.arange(height).to(mask) + 0.5)).sum() / total / height
    return Target(float(x), float(y))
