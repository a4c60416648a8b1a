"""Fuse several results for one view, and sharpen edges, depending on the detail at each pixel.

Source: the InvSR study (GitHub dgm-2025.2-g4), util_enhancement.py.
Deviation: edge pixels are repeated around an image. The source pads with zeros, and takes the step to
    this padding for detail.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..color.align import compute_luma
from .adaptive import average_locally, compute_gradient

AttentionKind = Literal["gradient", "variance"]
ATTENTION_KINDS: list[AttentionKind] = list(get_args(AttentionKind))

FusionMethod = Literal["weighted", "max"]
FUSION_METHODS: list[FusionMethod] = list(get_args(FusionMethod))

ATTENTION_BLUR_PIXELS = (2.0, 6)
"""Standard deviation and radius of the Gaussian that smooths an attention map."""

EDGE_BLUR_PIXELS = (1.5, 2)
"""Standard deviation and radius of the Gaussian that separates the high frequencies to sharpen."""


def compute_attention(image: Tensor, kind: AttentionKind) -> Tensor:
    """Compute an attention map, which is high where an image has detail.

    Args:
        image: (B, 3, H, W), any float dtype, in [0, 1].
        kind: "gradient" takes the luma's Sobel gradient for detail; "variance" takes its variance in
            5 x 5 pixels.

    Returns:
        (B, 1, H, W) float32 in [0, 1], blurred; all zeros for a flat image.
    """
    light = compute_luma(image)
    if kind == "gradient":
        detail = compute_gradient(light)
    else:
        detail = average_locally((light - average_locally(light)).square())
    low, high = detail.amin((1, 2, 3), True), detail.amax((1, 2, 3), True)
    detail = (detail - low) / (high - low).clamp(min=torch.finfo(detail.dtype).tiny)
    return _blur(detail, *ATTENTION_BLUR_PIXELS)


def fuse(images: Tensor, method: FusionMethod, kind: AttentionKind) -> Tensor:
    """Fuse images of one view into one that takes each pixel from the images with detail there.

    Args:
        images: (B, 3, H, W), any float dtype, in [0, 1].
        method: "weighted" averages the images, weighted by their attention. "max" takes each pixel
            from the image with the highest attention there, or from the first of equal ones.
        kind: As in `compute_attention`.

    Returns:
        (1, 3, H, W) in [0, 1].

    Deviation: where all attention is 0, "weighted" takes the plain mean; the source gives black.
    """
    attention = compute_attention(images, kind)
    if method == "max":
        choice = attention.argmax(0, keepdim=True).expand(1, *images.shape[1:])
        return images.gather(0, choice)
    total = attention.sum(0, keepdim=True)
    weights = torch.where(total > 0, attention / total, 1 / len(images))
    return (weights * images).sum(0, keepdim=True)


def sharpen_edges(image: Tensor, strength: float) -> Tensor:
    """Sharpen images at their edges, and leave flat parts as they are.

    Args:
        image: (B, 3, H, W), any float dtype, in [0, 1].
        strength: 0 to 1. At 0 nothing changes; at 1 the high frequencies are tripled at the strongest
            edge of the image.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    gradient = compute_gradient(compute_luma(image))
    edges = gradient / gradient.amax((1, 2, 3), True).clamp(min=torch.finfo(gradient.dtype).tiny)
    exact = image.float()
    detail = exact - _blur(exact, *EDGE_BLUR_PIXELS)
    return (exact + 2 * strength**2 * edges * detail).clamp(0, 1)


def _blur(image: Tensor, deviation: float, radius: int) -> Tensor:
    """Blur images (B, C, H, W) with a Gaussian; edge pixels are repeated."""
    places = torch.arange(-radius, radius + 1, device=image.device)
    kernel = (-(places**2) / (2 * deviation**2)).exp()
    kernel = (kernel / kernel.sum()).to(image).view(1, 1, 1, -1)
    b, c, h, w = image.shape
    padded = F.pad(image, (radius,) * 4, mode="replicate").view(b * c, 1, h + 2 * radius, -1)
    return F.conv2d(F.conv2d(padded, kernel), kernel.mT).view(b, c, h, w)
