"""SSIM and PSNR of piq and torchmetrics, of pairs of images, in float64."""

import torch
from torch import Tensor

from coz.fidelity.metrics import ROWS_PER_BAND
from tests.support.images import noise


def spoilt(image: Tensor, spread: float = 0.1) -> Tensor:
    values = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + spread * values).clamp(0, 1)


PAIRS = {
    "noise": (noise(1, 3, 200, 150), noise(1, 3, 200, 150, seed=1)),
    "one window": (noise(1, 3, 11, 11), noise(1, 3, 11, 11, seed=1)),
    "one row of windows": (noise(1, 3, 11, 300), noise(1, 3, 11, 300, seed=1)),
    "a band and a row": (
        noise(1, 3, ROWS_PER_BAND + 11, 20),
        noise(1, 3, ROWS_PER_BAND + 11, 20, seed=1),
    ),
    "a batch": (noise(3, 3, 70, 80), spoilt(noise(3, 3, 70, 80))),
    "grey": (noise(1, 1, 90, 60), spoilt(noise(1, 1, 90, 60))),
}


def record() -> dict[str, dict[str, float]]:
    import piq
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    recorded = {}
    for name, (a, b) in PAIRS.items():
        exact = a.double(), b.double()  # in float32 the two differ by 1e-5
        # torchmetrics' own mean takes in windows of mirrored pixels at the edges.
        settings = {"data_range": 1.0, "return_full_image": True}
        _, places = structural_similarity_index_measure(*exact, **settings)
        recorded[name] = {
            "piq ssim": float(piq.ssim(*exact, downsample=False)),
            "torchmetrics ssim": float(places[..., 5:-5, 5:-5].mean()),
            "torchmetrics psnr": float(peak_signal_noise_ratio(*exact, data_range=1.0)),
            "piq psnr": float(piq.psnr(*exact)),
        }
    return recorded
