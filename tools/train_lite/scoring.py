"""Score the built-in models against limits: fidelity on held-out photographs, texture along chains."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps
from spandrel import ModelLoader
from torch import Tensor

from coz.chain.zoom_chain import ZoomChain
from coz.color.align import compute_luma, wavelet_align
from coz.fidelity.metrics import (
    compute_laplacian,
    measure_color_shift,
    measure_psnr,
    measure_sharpness,
)
from coz.geometry import Target, ZoomPlan, plan_zoom
from coz.render.pillow import from_pillow, to_pillow
from coz.resample import crop, resize
from coz.zoom import zoom

from . import data
from .losses import measure_repetition

MEBIBYTE = 1 << 20
BORDER = 4
"""Pixels at each edge of an image that are not compared."""
GRAY_LEVELS = (0, 8, 32, 64, 96, 128, 160, 192, 224, 248, 255)
MIN_GAINS_DB = {0: 1.8, 60: 0.5, 70: 0.5, 80: 0.5}
"""JPEG quality of the input (0: not compressed) -> the minimum gain over bicubic, in dB."""
FRAME_SIDE_PIXELS = 512
STEPS = 4
TARGETS = {
    "eye": ("astronaut", Target(0.482, 0.197)),
    "cheek": ("astronaut", Target(0.40, 0.255)),
    "sleeve": ("astronaut", Target(0.20, 0.62)),
    "badge": ("astronaut", Target(0.335, 0.75)),
    "rocket nose": ("rocket", Target(0.5, 0.35)),
    "night sky": ("rocket", Target(0.36, 0.22)),
    "crater": ("moon", Target(0.235, 0.165)),
    "pen stroke": ("text", Target(0.435, 0.37)),
}
"""Name -> photograph and target of a chain. They show edges, skin, cloth, sky, stone and ink, and were chosen
before any result was seen."""

MAX_LATTICE = 0.06
"""Maximum lattice (see `ChainStep`). Photographs have 0.055 (rocket, a JPEG file), or up to 0.043 (eleven others)."""

JPEG_CORNERS = {
    "astronaut": (60, [(160, 216), (240, 112), (104, 320), (176, 384), (344, 152), (256, 424)]),
    "perched-osprey": (
        70,
        [(800, 480), (848, 640), (1000, 720), (1304, 752), (600, 560), (896, 304)],
    ),
    "beacon-street-sunset": (
        80,
        [(400, 600), (640, 704), (904, 808), (1104, 560), (1304, 640), (304, 800)],
    ),
}
"""Photograph -> the quality with which it is saved as JPEG, and corners of JPEG blocks (x, y) to zoom into."""
BLOCK_PIXELS = 8
MAX_BLOCKINESS = 0.2141 / 3
"""Maximum mean blockiness, in levels of 255: a third of that of the texture model of version 0.1, which had
0.719, 0.140, -0.018 and 0.015 at its four steps."""
MAX_DIFFERENCE = 0.4 * 7.66
"""Maximum difference from Real-ESRGAN, in levels of 255: 40 % of that of the texture model of version 0.1."""
CROP_SIDE_PIXELS = 64

Upscale = Callable[[Tensor], Tensor]
"""Function that enlarges (1, 3, H, W) in [0, 1] four times and clamps the result."""


class Score(NamedTuple):
    """One measured number, and the range in which it has to lie."""

    name: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        return self.low <= self.value <= self.high


@dataclass(frozen=True)
class ChainStep:
    """The frame that one step of a chain made, and its measured values."""

    frame: Tensor
    laplacian_variance: float
    kurtosis: float
    agreement: float
    """PSNR in dB of the frame, downscaled by Pillow's BOX filter, with its input."""
    drift: float
    """Levels of 255 by which this step and those before it moved the mean color, in the worst channel."""
    lattice: float
    """Strength of patterns with a period of 4 pixels: the first value of `losses.measure_repetition`."""


def load_model(path: Path) -> Upscale:
    """Load a model as ComfyUI does: spandrel guesses architecture and factor from the keys."""
    model = ModelLoader(device="cpu").load_from_file(path)
    if model.scale != data.SCALE:
        raise ValueError(f"{path} enlarges {model.scale} times, not {data.SCALE}")
    return clamp_results(model)


def clamp_results(model: Upscale) -> Upscale:
    def upscale(lq: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(lq).clamp(0, 1)

    return upscale


def measure_inner_psnr(first: Image.Image, second: Image.Image, border: int) -> float:
    """Measure the PSNR in dB of two RGB images, without ``border`` pixels at each edge."""
    a, b = (from_pillow(ImageOps.crop(image, border)) for image in (first, second))
    return measure_psnr(a, b)


def measure_fidelity(upscale: Upscale, quality: int = 0) -> Iterator[tuple[str, float, float]]:
    """Yield (name, PSNR of Pillow's bicubic, PSNR of the model) for each held-out photograph.

    The input is compressed as JPEG of this quality, or not at all if the quality is 0.
    """
    for name in data.HELD_OUT:
        hr = data.crop_to_multiple(data.read_sharp_picture(name))
        lr = data.downscale(hr)
        if quality:
            lr = data.apply_jpeg(lr, quality)
        bicubic = lr.resize(hr.size, Image.Resampling.BICUBIC)
        sr = to_pillow(upscale(from_pillow(lr)))
        yield name, measure_inner_psnr(bicubic, hr, BORDER), measure_inner_psnr(sr, hr, BORDER)


def measure_flat_error(upscale: Upscale) -> float:
    """Measure the worst mean error on flat gray images, in levels of 255."""
    errors = []
    for gray in GRAY_LEVELS:
        flat = torch.full((1, 3, 64, 64), gray / 255)
        errors.append((upscale(flat) - gray / 255).mean(dim=(0, 2, 3)).abs().max() * 255)
    return float(max(errors))


def measure_seconds(upscale: Upscale, repeats: int = 5) -> float:
    """Measure the seconds for 128 -> 512 pixels on two cores: the fastest run, because the machine may be busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    lq = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        upscale(lq)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return min(times)


def compute_laplacian_statistics(frame: Tensor) -> tuple[float, float]:
    """Compute variance and kurtosis (3 for Gaussian noise) of the Laplacian of the luma."""
    edges = compute_laplacian(frame).double()
    centered = edges - edges.mean()
    variance = measure_sharpness(frame)
    return variance, float(centered.pow(4).mean() / max(variance, 1e-12) ** 2)


def measure_seam(frame: Tensor, scale: int) -> float:
    """Measure how much steeper a frame is at the borders of JPEG blocks than elsewhere, in levels of 255.

    The middle of the frame must be a corner of blocks. One pixel of the file covers ``scale`` x ``scale``
    pixels of the frame.
    """
    light, excess = compute_luma(frame) * 255, 0.0
    for image in (light, light.mT):
        slope = (image[..., 1:] - image[..., :-1]).abs().mean((0, 1, 2))
        place = torch.arange(1, image.shape[-1]) - image.shape[-1] // 2 + BLOCK_PIXELS * scale // 2
        near = (place % (BLOCK_PIXELS * scale) - BLOCK_PIXELS * scale // 2).abs() <= scale // 2
        excess += float(slope[near].mean() - slope[~near].mean()) / 2
    return excess


def measure_blockiness(upscale: Upscale) -> np.ndarray:
    """Measure, for each step, how much stronger the seams are in a chain from a JPEG file than from a clean image."""
    rows = []
    for name, (quality, corners) in JPEG_CORNERS.items():
        clean = data.read_sharp_picture(name)
        for x, y in corners:
            target = Target(x / clean.width, y / clean.height)
            seams = [
                [
                    measure_seam(step.frame, data.SCALE**number)
                    for number, step in enumerate(
                        run_chain(upscale, from_pillow(image), target)[1], 1
                    )
                ]
                for image in (data.apply_jpeg(clean, quality), clean)
            ]
            rows.append(np.subtract(*seams))
    return np.mean(rows, 0)


def measure_difference(upscale: Upscale, teacher: Upscale) -> float:
    """Measure the mean absolute difference of the first step from the teacher's, over all targets, in levels of 255."""
    errors = []
    for name, target in TARGETS.values():
        image = from_pillow(data.read_picture(name))
        y, x = (
            min(max(0, round(place * side) - CROP_SIDE_PIXELS // 2), side - CROP_SIDE_PIXELS)
            for place, side in zip((target.y, target.x), image.shape[2:], strict=True)
        )
        lq = image[..., y : y + CROP_SIDE_PIXELS, x : x + CROP_SIDE_PIXELS]
        errors.append((upscale(lq) - teacher(lq)).abs().mean() * 255)
    return float(torch.stack(errors).mean())


def zoom_with(upscale: Upscale, source: Tensor, plan: ZoomPlan) -> ZoomChain:
    """Run the chain of an upscale model with the wavelet color fix."""
    return zoom(
        source,
        plan,
        lambda view, text: resize(upscale(view.crop), *view.zoomed.shape[-2:]),
        align=lambda sr, view: wavelet_align(sr, view.zoomed),
    )


def run_chain(upscale: Upscale, source: Tensor, target: Target) -> tuple[Tensor, list[ChainStep]]:
    """Run a chain of ``STEPS`` steps; return x_0 and the steps after it."""
    plan = plan_zoom(*source.shape[-2:], STEPS, data.SCALE, target, size=FRAME_SIDE_PIXELS)
    chain = zoom_with(upscale, source, plan)
    steps, moved = [], torch.zeros(3)
    for before, window, frame in zip(
        chain.frames[1:], chain.windows[1:], chain.frames[2:], strict=False
    ):
        lq = crop(before, window)
        moved = moved + measure_color_shift(frame, lq)
        small = to_pillow(frame).resize(lq.shape[:1:-1], Image.Resampling.BOX)
        agreement = measure_psnr(from_pillow(small), from_pillow(to_pillow(lq)))
        drift = float(moved.abs().max())
        statistics = compute_laplacian_statistics(frame)
        steps.append(
            ChainStep(frame, *statistics, agreement, drift, float(measure_repetition(frame)[0]))
        )
    return chain.frames[1], steps


def run_all_chains(upscale: Upscale) -> dict[str, tuple[Tensor, list[ChainStep]]]:
    return {
        name: run_chain(upscale, from_pillow(data.read_picture(picture)), target)
        for name, (picture, target) in TARGETS.items()
    }


def measure_worst_lattice(upscale: Upscale) -> float:
    """Measure the worst lattice in the chains. A regression invents nothing, so it must draw no lattice."""
    return max(step.lattice for _, steps in run_all_chains(upscale).values() for step in steps)


def score_file(path: Path, upscale: Upscale) -> list[Score]:
    return [
        Score("file, MiB", path.stat().st_size / MEBIBYTE, 0, 4),
        Score("128 -> 512 on two cores, s", measure_seconds(upscale), 0, 1.5),
    ]


def score_fidelity(upscale: Upscale) -> list[Score]:
    scores = []
    for quality, minimum in MIN_GAINS_DB.items():
        note = f", JPEG {quality}" if quality else ""
        gains = []
        for name, bicubic, sr in measure_fidelity(upscale, quality):
            print(f"  {name + note:30} bicubic {bicubic:6.2f} dB   model {sr - bicubic:+.2f} dB")
            gains.append(sr - bicubic)
        scores.append(
            Score(f"mean gain over bicubic{note}, dB", float(np.mean(gains)), minimum, np.inf)
        )
    return [
        *scores,
        Score("worst mean error on flat gray, levels", measure_flat_error(upscale), 0, 0.5),
        Score(
            "worst 4-pixel lattice in chains",
            measure_worst_lattice(upscale),
            0,
            MAX_LATTICE,
        ),
    ]


def score_chains(upscale: Upscale) -> list[Score]:
    scores = []
    for name, (_, steps) in run_all_chains(upscale).items():
        for number, step in enumerate(steps, 1):
            scores += [
                Score(f"{name}, x_{number}: Laplacian variance", step.laplacian_variance, 0, 860),
                Score(f"{name}, x_{number}: Laplacian kurtosis", step.kurtosis, 5, np.inf),
                Score(f"{name}, x_{number}: agreement with input, dB", step.agreement, 30, np.inf),
                Score(f"{name}, x_{number}: color drift, levels", step.drift, 0, 2),
                Score(f"{name}, x_{number}: 4-pixel lattice", step.lattice, 0, MAX_LATTICE),
            ]
    return scores


def score_jpeg_and_imitation(upscale: Upscale, teacher: Upscale) -> list[Score]:
    seams = measure_blockiness(upscale)
    print("  JPEG blockiness of steps 1 to 4:", *(f"{value:.3f}" for value in seams))
    return [
        Score(
            "JPEG blockiness, mean of the steps, levels",
            seams.mean(),
            -np.inf,
            MAX_BLOCKINESS,
        ),
        Score(
            "difference from Real-ESRGAN at step 1, levels",
            measure_difference(upscale, teacher),
            0,
            MAX_DIFFERENCE,
        ),
    ]


def draw_contact_sheet(models: dict[str, Path], side: int = 256) -> Image.Image:
    """Draw a row for each target and model: x_0, then the frame of each step."""
    chains = {name: run_all_chains(load_model(path)) for name, path in models.items()}
    rows = []
    for target in TARGETS:
        for model, chain in chains.items():
            x0, steps = chain[target]
            rows.append(
                (f"{target}, {model}", [to_pillow(x0), *(to_pillow(s.frame) for s in steps)])
            )
    sheet = Image.new("RGB", ((side + 4) * (STEPS + 1), (side + 24) * len(rows)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for row, (label, frames) in enumerate(rows):
        y = row * (side + 24)
        for column, frame in enumerate(frames):
            frame.thumbnail((side, side), Image.Resampling.LANCZOS)
            sheet.paste(frame, (column * (side + 4), y + 20))
            pen.text((column * (side + 4), y + 2), f"{data.SCALE**column}x  {label}", "black", font)
    return sheet
