"""Train the faithful model, a regression on images downscaled by Pillow's bicubic filter."""

import os
from pathlib import Path

import numpy as np
import torch
from skimage.filters import gaussian
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from coz.ensemble import self_ensemble
from coz.resample import resize

from . import data
from .loop import DEVICE, Training
from .losses import compute_grid_loss
from .teachers import FOLDER, load_span

STEPS = 10_000
BATCH, SIDE = 4, 48
"""Number of patches in a step, and their side in pixels of the low-resolution (LR) input."""
LATE_BATCH, LATE_SIDE = 2, 64
"""The same for the last part of the training, in float32. A smaller share of a larger patch lies near the
zero padding."""
GPU_BATCH_FACTOR = 8
"""Factor by which a step on a GPU has more patches."""
MUON_LR = 2e-3
ADAM_LR = 7e-4
DECAY_SHARE = 0.4
"""Share of the steps, at the end, over which the learning rates fall to 0."""
SQUARED_ERROR_SHARE = 0.3
"""Share of the steps, at the end, with squared errors, which PSNR is computed from."""
FLOAT32_SHARE = 0.3
"""Share of the steps, at the end, that run in float32, with low-contrast patches and the grid loss.
Earlier steps run in bfloat16, which rounds bright pixels to whole levels of 255. A network trained only in
bfloat16 draws a 4-pixel staircase into smooth shading. This hardly changes the PSNR, but each step of a chain
enlarges it."""
JPEG_SHARE = 0.5
JPEG_QUALITIES = (50, 95)
BLURRED_SHARE = 0.4
BLUR_SIGMAS_PIXELS = (2, 16)
"""Range of the blur's standard deviation, in pixels of the larger image."""
MIN_PATCH_CONTRAST = 0.05
GRID_LOSS_WEIGHT = 0.02
TRUTH_SHARE = 0.5
"""Weight of the photograph in the mean of photograph and teacher's result."""
VARIANTS = 1
"""Number of variants of each photograph at each size."""
NATIVE_CROPS = 2
"""Number of crops of each photograph, at the scale at which its pixels are sharp. As many crops are made of
the teacher's results for them."""
CROP_SIDE_PIXELS = 160
"""Side of these crops."""
SYNTHETIC_IMAGES = 200


def make_pairs(seed: int, teacher: nn.Module) -> list[data.Pair]:
    """Make pairs from downscaled photographs, their crops, crops of the teacher's results, and drawings.

    The larger image of a pair is the target. For a drawing it is the drawing itself, otherwise the
    teacher's result, averaged with the photograph if there is one of that size. This target is
    closer than the photograph to the mean of all images that fit the input.
    """
    rng = np.random.default_rng(seed)
    pairs = []

    def add_pair(lr: Tensor, hr: Tensor | None = None) -> None:
        with torch.inference_mode():
            taught = self_ensemble(teacher, lr[None].float().to(DEVICE) / 255)
        taught = taught[0].clamp(0, 1).cpu() * 255
        mixed = taught if hr is None else taught.lerp(hr.float(), TRUTH_SHARE)
        pairs.append(data.Pair(mixed.round().byte(), lr))

    for image in data.make_photograph_variants(rng, VARIANTS):
        pair = data.make_pair(image)
        add_pair(pair.lr, pair.hr)
    for name in data.PHOTOGRAPHS:
        for _ in range(NATIVE_CROPS):
            add_pair(
                data.crop_randomly(
                    data.to_tensor(data.read_sharp_picture(name)), CROP_SIDE_PIXELS, rng
                )
            )
            add_pair(data.crop_randomly(pairs[-1].hr, CROP_SIDE_PIXELS, rng))
    return pairs + [
        data.make_pair(image) for image in data.make_synthetic_images(rng, SYNTHETIC_IMAGES)
    ]


def read_pairs(seed: int) -> list[data.Pair]:
    """Read the pairs of `make_pairs` from their file; if there is none, make and save them."""
    file = FOLDER / f"faithful_{seed}.pt"
    if not file.exists():
        print("Running the teacher: this takes ten minutes on one core", flush=True)
        pairs = make_pairs(seed, load_span().to(DEVICE))
        torch.save([tuple(pair) for pair in pairs], file)  # weights_only=True cannot read a Pair
    return [data.Pair(*pair) for pair in torch.load(file, weights_only=True)]


def make_smooth(lq: Tensor, hr: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Blur some patches and lower the contrast of others, without rounding.

    Such patches are as smooth as the input of a deep zoom.

    Returns:
        The changed ``lq`` and ``hr``, and a divisor (B, 1, 1, 1) for the errors of each patch, so that
        small errors in smooth patches count as much as large errors in others. It is the factor of
        the contrast, or ``MIN_PATCH_CONTRAST`` for a blurred patch.
    """
    is_blurred = rng.random(len(lq)) < BLURRED_SHARE
    for i in np.flatnonzero(is_blurred):
        sigma = np.exp(rng.uniform(*np.log(BLUR_SIGMAS_PIXELS)))
        hr[i] = torch.from_numpy(gaussian(hr[i].numpy(), sigma, channel_axis=0))
        lq[i] = resize(hr[i : i + 1], *lq.shape[-2:])[0]
    contrasts = np.where(rng.random(len(lq)) < 0.5, 1, MIN_PATCH_CONTRAST ** rng.random(len(lq)))
    contrast, divisor = (
        torch.from_numpy(values.astype(np.float32)).view(-1, 1, 1, 1)
        for values in (contrasts, np.where(is_blurred, MIN_PATCH_CONTRAST, contrasts))
    )
    mean = lq.mean((2, 3), keepdim=True)
    return mean + (lq - mean) * contrast, mean + (hr - mean) * contrast, divisor


def is_precise(step: int, steps: int) -> bool:
    """Return whether a step runs in float32."""
    return step >= (1 - FLOAT32_SHARE) * steps


class Batches(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The data of each step: LR patches, their targets, and the divisors of their errors."""

    def __init__(self, pairs: list[data.Pair], steps: int, seed: int) -> None:
        self.pairs, self.steps, self.seed = pairs, steps, seed
        pixels = np.array([pair.lr[0].numel() for pair in pairs])
        self.weights = pixels / pixels.sum()

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        # Each step has its own generator, so that a continued training gets the same patches as an unbroken one.
        rng = np.random.default_rng([self.seed, step])
        precise = is_precise(step, self.steps)
        batch, side = (LATE_BATCH, LATE_SIDE) if precise else (BATCH, SIDE)
        batch *= GPU_BATCH_FACTOR if DEVICE == "cuda" else 1
        lq, hr = data.sample_patches(self.pairs, rng, batch, side, self.weights)
        for patch in lq:
            if rng.random() < JPEG_SHARE:
                patch.copy_(data.apply_random_jpeg(patch, rng, JPEG_QUALITIES))
        return make_smooth(lq, hr, rng) if precise else (lq, hr, torch.ones(1))


def compute_loss(progress: float, sr: Tensor, hr: Tensor, divisor: Tensor) -> Tensor:
    error = (sr - hr) / divisor
    return error.square().mean() if progress > 1 - SQUARED_ERROR_SHARE else error.abs().mean()


def train(
    start_from: Path | None, out: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0
) -> None:
    """Train a new network or that in `start_from`, or continue from `checkpoint` after an interruption.

    The averaged weights are written to `out`.
    """
    torch.manual_seed(seed)
    pairs = read_pairs(seed)
    training = Training(start_from, MUON_LR, ADAM_LR, DECAY_SHARE)
    first = training.resume(checkpoint)
    workers = os.cpu_count() if DEVICE == "cuda" else 0
    batches = DataLoader(
        Batches(pairs, steps, seed), None, sampler=range(first, steps), num_workers=workers or 0
    )
    numbers = training.run_steps(first, steps, out, checkpoint)
    for step, (lq, hr, divisor) in zip(numbers, batches, strict=True):
        precise = is_precise(step, steps)
        lq = lq.to(DEVICE, memory_format=torch.channels_last)
        with torch.autocast(DEVICE, torch.bfloat16, enabled=not precise):
            sr = training.net(lq)
        loss = compute_loss(step / steps, sr.float(), hr.to(DEVICE), divisor.to(DEVICE))
        if precise:
            loss = loss * (1 + GRID_LOSS_WEIGHT * compute_grid_loss(sr))
        training.learn(loss)
