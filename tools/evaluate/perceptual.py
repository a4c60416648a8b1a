"""LPIPS and DISTS, as torchmetrics has them: distances of two pictures in a network's features.

torchmetrics is imported where it is used: that takes seconds, and without weights is in vain.
"""

from collections.abc import Callable
from math import ceil

from torch import Tensor
from torchvision.models import AlexNet_Weights, VGG16_Weights

from coz.resample import resize

from .weights import WeightFile, load

ALEXNET = WeightFile(AlexNet_Weights.DEFAULT.url, "checkpoints")
VGG16 = WeightFile(VGG16_Weights.DEFAULT.url, "checkpoints")
"""233 MB and 528 MB. The small weights on top of them come with torchmetrics."""

LEAST_SIDE = 64
"""Pixels: the patches that LPIPS was fitted to (Zhang et al. 2018, section 3). Both pictures are
enlarged alike, bicubic, where the shorter side has less."""

Distance = Callable[[Tensor, Tensor], float]


def load_lpips(device: str) -> Distance:
    """Version 0.1 with AlexNet: the field's usual one, pyiqa's `lpips`, and so OracleZoom's."""

    def build():
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity("alex").net

    network = load("LPIPS", [ALEXNET], build).to(device)
    return lambda a, b: float(network(*_sized(a, b, device), normalize=True))


def load_dists(device: str) -> Distance:
    """At the pictures' own size, as pyiqa's `dists`, and so OracleZoom's; piq shrinks to 256 px."""

    def build():
        from torchmetrics.functional.image.dists import DISTSNetwork

        return DISTSNetwork()

    network = load("DISTS", [VGG16], build).to(device)
    # Rounding leaves equal pictures at about -1e-7.
    return lambda a, b: max(float(network(*_sized(a, b, device))), 0.0)


def projected(sr: Tensor, small: Tensor) -> Tensor:
    """`sr` at the size of `small`, as OracleZoom's LPIPS(down4(x16), x4): bicubic, antialiased."""
    return resize(sr, *small.shape[-2:]).clamp(0, 1)


def _sized(a: Tensor, b: Tensor, device: str) -> tuple[Tensor, Tensor]:
    height, width = a.shape[-2:]
    factor = max(LEAST_SIDE / min(height, width), 1.0)
    size = ceil(height * factor), ceil(width * factor)
    return tuple(resize(image, *size).clamp(0, 1).to(device) for image in (a, b))
