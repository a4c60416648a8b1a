"""Define the metrics of the evaluation's table and measure them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal

import piq
import torch
from torch import Tensor

from coz.chain.real_pixels import MIN_COMPARED_SIDE_PIXELS
from coz.fidelity.back_projection import measure_agreement
from coz.fidelity.metrics import measure_color_drift, measure_psnr, measure_sharpness, measure_ssim

from .iqa import PYIQA_NAMES, load_score
from .perceptual import downscale_to, load_dists, load_lpips
from .seam import measure_seam
from .weights import MissingWeightsError


@dataclass(frozen=True)
class Metric:
    """A column of the table."""

    name: str
    title: str
    better: Literal["higher", "lower", "neither"]
    kind: Literal["fidelity", "consistency", "naturalness", "property"]
    library: str
    note: str
    """The exact definition, for the legend of the table."""
    min_side: int = 1
    """Minimum pixels of a frame's shorter side."""


METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            "psnr", "PSNR (dB)", "higher", "fidelity", "coz",
            "against the ground truth, over all pixels and channels",
        ),
        Metric(
            "ssim", "SSIM", "higher", "fidelity", "coz",
            "Gaussian window of 11 pixels, mean of the three channels, at full size", 11,
        ),
        Metric(
            "ms_ssim", "MS-SSIM", "higher", "fidelity", "piq",
            "SSIM at five sizes, each half of the one before, mean of the three channels", 161,
        ),
        Metric(
            "lpips", "LPIPS", "lower", "fidelity", "torchmetrics",
            "version 0.1 with AlexNet: what pyiqa calls lpips",
        ),
        Metric(
            "dists", "DISTS", "lower", "fidelity", "torchmetrics",
            "at full size, with VGG16: what pyiqa calls dists",
        ),
        Metric(
            "gmsd", "GMSD", "lower", "fidelity", "piq",
            "standard deviation of the gradient similarity of the luma",
        ),
        Metric(
            "fsim", "FSIMc", "higher", "fidelity", "piq",
            "similarity of phase congruency, gradients and colors", 48,
        ),
        Metric(
            "consistency", "Consistency (dB)", "higher", "consistency", "coz",
            "PSNR of the downscaled frame against its window in the frame before",
        ),
        Metric(
            "source_psnr", "Source PSNR (dB)", "higher", "consistency", "coz",
            "PSNR of the downscaled frame against its window in the source, if this has at least "
            "8 x 8 pixels", MIN_COMPARED_SIDE_PIXELS,
        ),
        Metric(
            "p_lpips", "P-LPIPS", "lower", "consistency", "torchmetrics",
            "LPIPS of the downscaled frame against its window in the frame before",
        ),
        Metric(
            "p_dists", "P-DISTS", "lower", "consistency", "torchmetrics",
            "DISTS of the downscaled frame against its window in the frame before",
        ),
        Metric(
            "niqe", "NIQE", "lower", "naturalness", "pyiqa",
            "pyiqa's niqe: unlikeness to the statistics of photographs", 96,
        ),
        Metric(
            "musiq", "MUSIQ", "higher", "naturalness", "pyiqa",
            "pyiqa's musiq: trained on KonIQ-10k, 0 to 100",
        ),
        Metric(
            "maniqa", "MANIQA", "higher", "naturalness", "pyiqa",
            "pyiqa's maniqa-pipal: trained on PIPAL, 0 to 1",
        ),
        Metric(
            "clipiqa", "CLIPIQA", "higher", "naturalness", "pyiqa",
            "pyiqa's clipiqa: CLIP (ResNet-50) with pairs of opposite words, 0 to 1",
        ),
        Metric(
            "sharpness", "Sharpness", "neither", "property", "coz",
            "variance of the Laplacian, in levels of 255 squared; noise is sharp too", 3,
        ),
        Metric(
            "color_drift", "Color drift", "lower", "property", "coz",
            "largest difference of a channel's mean from that of its window, in levels of 255",
        ),
        Metric(
            "seam", "Seam", "lower", "property", "coz",
            "mean difference of neighboring pixels across an 8-pixel grid, divided by that elsewhere; 1 is no seam", 16,
        ),
    )
}  # fmt: skip

ALL_METRICS = tuple(METRICS)


@dataclass(frozen=True)
class ComparedImages:
    """A frame and the images that it is compared with, all (1, 3, H, W) float32 in [0, 1]."""

    sr: Tensor
    lq: Tensor
    source: Tensor
    ground_truth: Tensor | None


Measure = Callable[[ComparedImages], float]

WEIGHTLESS_MEASURES: dict[str, Measure] = {
    "psnr": lambda x: measure_psnr(x.sr, x.ground_truth),
    "ssim": lambda x: measure_ssim(x.sr, x.ground_truth),
    "ms_ssim": lambda x: float(
        piq.multi_scale_ssim(_to_channels_last(x.sr), _to_channels_last(x.ground_truth))
    ),
    "gmsd": lambda x: float(piq.gmsd(x.sr, x.ground_truth)),
    "fsim": lambda x: float(piq.fsim(x.sr, x.ground_truth)),
    "consistency": lambda x: measure_agreement(x.sr, x.lq),
    "source_psnr": lambda x: measure_agreement(x.sr, x.source),
    "sharpness": lambda x: measure_sharpness(x.sr),
    "color_drift": lambda x: measure_color_drift(x.sr, x.lq),
    "seam": lambda x: measure_seam(x.sr),
}
"""The metrics that need no weights."""


class Meter:
    """Load the networks once, then measure frame by frame.

    Args:
        names: Metrics in METRICS.
        device: Where the networks run.

    Raises:
        ValueError: If a name is unknown.
    """

    missing: dict[str, str]
    """Metric -> why it is not measured and which file to download, in one line."""

    def __init__(self, names: Sequence[str], device: str = "cpu") -> None:
        unknown = [name for name in names if name not in METRICS]
        if unknown:
            raise ValueError(f"no metric {', '.join(unknown)}; there are: {', '.join(METRICS)}")
        self.missing = {}
        self._measures: dict[str, Measure] = {}
        learned = _LearnedMeasures(device)
        for name in dict.fromkeys(names):
            try:
                self._measures[name] = WEIGHTLESS_MEASURES.get(name) or learned.load_measure(name)
            except MissingWeightsError as error:
                self.missing[name] = str(error)

    def measure(
        self,
        sr: Tensor,
        *,
        lq: Tensor,
        source: Tensor,
        ground_truth: Tensor | None,
    ) -> tuple[dict[str, float], dict[str, str]]:
        """Measure one frame; return the values, and why other metrics cannot be measured.

        All images are (1, 3, H, W) float32 in [0, 1] and are not changed.

        Args:
            sr: The frame.
            lq: The frame's window in the frame before, not enlarged.
            source: The frame's window in the source, not enlarged.
            ground_truth: The true image at the frame's size, or None.

        Raises:
            ValueError: If an image has a wrong shape, dtype or value range.
        """
        _check(sr, lq, source, ground_truth)
        # A resized image is not contiguous in memory, which makes the libraries 1.5 times as slow.
        images = ComparedImages(
            *(None if x is None else x.contiguous() for x in (sr, lq, source, ground_truth))
        )
        side, real = min(sr.shape[-2:]), min(source.shape[-2:])
        scores: dict[str, float] = {}
        reasons: dict[str, str] = {}
        with torch.inference_mode():
            for name, measure in self._measures.items():
                metric = METRICS[name]
                if metric.kind == "fidelity" and ground_truth is None:
                    reasons[name] = f"{metric.title} needs a ground truth, but this frame has none"
                elif side < metric.min_side:
                    reasons[name] = (
                        f"{metric.title} needs {metric.min_side} px a side, but the frame has {side}"
                    )
                elif name == "source_psnr" and real < MIN_COMPARED_SIDE_PIXELS:
                    reasons[name] = (
                        f"{metric.title} needs {MIN_COMPARED_SIDE_PIXELS} real pixels a side, but "
                        f"the frame shows {real}"
                    )
                elif isnan(value := measure(images)):
                    reasons[name] = f"{metric.title} is not a number for this frame"
                else:
                    scores[name] = value
        return scores, reasons


class _LearnedMeasures:
    """The metrics that need weights. A network that two metrics share is loaded once."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.distances = {}

    def load_measure(self, name: str) -> Measure:
        if name in PYIQA_NAMES:
            score = load_score(name, self.device)
            return lambda x: score(x.sr)
        network = name.removeprefix("p_")
        if network not in self.distances:
            load = {"lpips": load_lpips, "dists": load_dists}[network]
            self.distances[network] = load(self.device)
        distance = self.distances[network]
        if name == network:
            return lambda x: distance(x.sr, x.ground_truth)
        return lambda x: distance(downscale_to(x.sr, x.lq), x.lq)


def _to_channels_last(image: Tensor) -> Tensor:
    """Put the channels last in memory, which makes the convolutions of MS-SSIM faster."""
    return image.contiguous(memory_format=torch.channels_last)


def _check(sr: Tensor, lq: Tensor, source: Tensor, truth: Tensor | None) -> None:
    named = {"frame": sr, "window": lq, "source": source}
    if truth is not None:
        named["ground truth"] = truth
    for name, image in named.items():
        if image.ndim != 4 or image.shape[:2] != (1, 3) or image.dtype != torch.float32:
            raise ValueError(
                f"the {name} must be (1, 3, H, W) float32, got {tuple(image.shape)} {image.dtype}"
            )
        low, high = float(image.min()), float(image.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"the {name} must lie in [0, 1], got {low:g} to {high:g}")
    if truth is not None and truth.shape != sr.shape:
        raise ValueError(
            f"the ground truth has {truth.shape[-1]} x {truth.shape[-2]} pixels and the frame "
            f"{sr.shape[-1]} x {sr.shape[-2]}: their sizes must be equal"
        )
