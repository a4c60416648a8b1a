"""Fuse several results for one view, and sharpen edges, depending on the detail at each pixel.

Source: the InvSR study (GitHub dgm-2025.2-g4), util_enhancement.py.
Deviation: edge pixels are repeated around an image. The study pads with zeros, and so mistakes the jump at
    the border for detail.
"""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from ..color.align import compute_luma
from .adaptive import average_locally, compute_gradient

DetailMeasure = Literal["gradient", "variance"]
DETAIL_MEASURES: list[DetailMeasure] = list(get_args(DetailMeasure))

FusionMethod = Literal["weighted", "max"]
FUSION_METHODS: list[FusionMethod] = list(get_args(FusionMethod))

DETAIL_BLUR_PIXELS = (2.0, 6)
"""Standard deviation and radius of the Gaussian that smooths a detail map."""

EDGE_BLUR_PIXELS = (1.5, 2)
"""Standard deviation and radius of the Gaussian that separates the high frequencies to sharpen."""


def map_detail(image: Tensor, measure: DetailMeasure) -> Tensor:
    """Map how much detail an image has at each pixel. The study calls it an attention map.

    Args:
        image: (B, 3, H, W), any float dtype, in [0, 1].
        measure: What counts as detail: "gradient" is the luma's Sobel gradient, "variance" its variance
            in 5 x 5 pixels.

    Returns:
        (B, 1, H, W) float32 in [0, 1], blurred; all zeros for a flat image.
    """
    luma = compute_luma(image)
    if measure == "gradient":
        detail = compute_gradient(luma)
    else:
        detail = average_locally((luma - average_locally(luma)).square())
    low, high = detail.amin((1, 2, 3), True), detail.amax((1, 2, 3), True)
    detail = (detail - low) / (high - low).clamp(min=torch.finfo(detail.dtype).tiny)
    return _blur(detail, *DETAIL_BLUR_PIXELS)


def fuse(images: Tensor, method: FusionMethod, measure: DetailMeasure) -> Tensor:
    """Fuse images of one view into one that takes each pixel from the images with detail there.

    Args:
        images: (B, 3, H, W), any float dtype, in [0, 1].
        method: "weighted" averages the images, weighted by their detail. "max" takes each pixel from
            the image with the most detail there, or from the first of equal ones.
        measure: As in ``map_detail``.

    Returns:
        (1, 3, H, W) in [0, 1].

    Deviation: where no image has detail, "weighted" takes the plain mean; the study gives black.
    """
    detail = map_detail(images, measure)
    if method == "max":
        choice = detail.argmax(0, keepdim=True).expand(1, *images.shape[1:])
        return images.gather(0, choice)
    total = detail.sum(0, keepdim=True)
    weights = torch.where(total > 0, detail / total, 1 / len(images))
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
    pixels = image.float()
    detail = pixels - _blur(pixels, *EDGE_BLUR_PIXELS)
    return (pixels + 2 * strength**2 * edges * detail).clamp(0, 1)


def _blur(image: Tensor, deviation: float, radius: int) -> Tensor:
    """Blur images (B, C, H, W) with a Gaussian; edge pixels are repeated."""
    places = torch.arange(-radius, radius + 1, device=image.device)
    kernel = (-(places**2) / (2 * deviation**2)).exp()
    kernel = (kernel / kernel.sum()).to(image).view(1, 1, 1, -1)
    b, c, h, w = image.shape
    padded = F.pad(image, (radius,) * 4, mode="replicate").view(b * c, 1, h + 2 * radius, -1)
    return F.conv2d(F.conv2d(padded, kernel), kernel.mT).view(b, c, h, w)
