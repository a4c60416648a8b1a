"""Measure LPIPS and DISTS with torchmetrics: the distance of two images in a network's features.

torchmetrics is imported only where it is used, because that takes seconds and may not be needed.
OracleZoom is arXiv 2609.06490.
"""

from collections.abc import Callable
from math import ceil

from torch import Tensor
from torchvision.models import AlexNet_Weights, VGG16_Weights

from coz.resample import resize

from .weights import WeightFile, load_network

ALEXNET = WeightFile(AlexNet_Weights.DEFAULT.url, "checkpoints")
VGG16 = WeightFile(VGG16_Weights.DEFAULT.url, "checkpoints")
"""The files have 233 MB and 528 MB. torchmetrics itself contains the small weights of the layers on top."""

MIN_SIDE_PIXELS = 64
"""Side in pixels of the patches that LPIPS was trained on (Zhang et al. 2018, section 3). Both images
are enlarged (bicubic) if their shorter side has fewer."""

Distance = Callable[[Tensor, Tensor], float]


def load_lpips(device: str) -> Distance:
    """Load LPIPS 0.1 with AlexNet, the usual variant, which pyiqa calls `lpips` and OracleZoom uses."""

    def build():
        from torchmetrics.image import LearnedPerceptualImagePatchSimilarity

        return LearnedPerceptualImagePatchSimilarity("alex").net

    network = load_network("LPIPS", [ALEXNET], build).to(device)
    return lambda a, b: float(network(*_enlarge_small(a, b, device), normalize=True))


def load_dists(device: str) -> Distance:
    """Load DISTS at full size, as in pyiqa and OracleZoom. piq would downscale to 256 pixels."""

    def build():
        from torchmetrics.functional.image.dists import DISTSNetwork

        return DISTSNetwork()

    network = load_network("DISTS", [VGG16], build).to(device)
    # For equal images, rounding errors give about -1e-7.
    return lambda a, b: max(float(network(*_enlarge_small(a, b, device))), 0.0)


def downscale_to(sr: Tensor, small: Tensor) -> Tensor:
    """Downscale `sr` to the size of `small` (bicubic, antialiased), as OracleZoom does."""
    return resize(sr, *small.shape[-2:]).clamp(0, 1)


def _enlarge_small(a: Tensor, b: Tensor, device: str) -> tuple[Tensor, Tensor]:
    height, width = a.shape[-2:]
    factor = max(MIN_SIDE_PIXELS / min(height, width), 1.0)
    size = ceil(height * factor), ceil(width * factor)
    return tuple(resize(image, *size).clamp(0, 1).to(device) for image in (a, b))
