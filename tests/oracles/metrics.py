"""SSIM and PSNR of piq and torchmetrics, of pairs of images, in float64."""

from coz.fidelity.metrics import ROWS_PER_BAND
from tests.support.images import add_noise, noise

PAIRS = {
    "noise": (noise(1, 3, 200, 150), noise(1, 3, 200, 150, seed=1)),
    "one window": (noise(1, 3, 11, 11), noise(1, 3, 11, 11, seed=1)),
    "one row of windows": (noise(1, 3, 11, 300), noise(1, 3, 11, 300, seed=1)),
    "a band and a row": (
        noise(1, 3, ROWS_PER_BAND + 11, 20),
        noise(1, 3, ROWS_PER_BAND + 11, 20, seed=1),
    ),
    "a batch": (noise(3, 3, 70, 80), add_noise(noise(3, 3, 70, 80), 0.1, seed=1)),
    "grey": (noise(1, 1, 90, 60), add_noise(noise(1, 1, 90, 60), 0.1, seed=1)),
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
