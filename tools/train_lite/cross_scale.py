"""Fine-tune a trained model through two zooms, and measure the errors of both zooms.

The losses A, B and D follow OracleZoom (arXiv 2609.06490). A compares the first zoom with the target. B
downscales the second zoom to the size of its view, and compares it with the middle of the target. D compares
both zooms with the results of the network before the fine-tuning; in OracleZoom only the second. OracleZoom
uses LPIPS for A and B. The network of LPIPS is in no package index, so squared errors are used here.
"""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from coz.color.align import wavelet_align
from coz.render.pillow import from_pillow
from coz.resample import resize

from . import data
from .faithful import JPEG_QUALITIES, JPEG_SHARE, make_smooth, read_pairs
from .loop import DEVICE, Training
from .losses import compute_grid_loss, measure_repetition
from .scoring import BORDER, Upscale

STEPS = 400
BATCH, SIDE = 2, 48
"""Number of patches in a step, and their side in pixels. The middle of each result, of the same size, is
zoomed again."""
MUON_LR = 4e-4
ADAM_LR = 2e-4
DECAY_SHARE = 1.0
"""Share of the steps, at the end, over which the learning rates fall to 0."""
SMOOTH_CHANCE = 1 / 4
"""Chance that the patches of a step are smooth or of low contrast: see `faithful.make_smooth`."""
MIN_DIVISOR = 0.25
"""Minimum divisor of an error. Without it, the smoothest patches of `make_smooth` would make up the whole
gradient of a step."""
WINDOW_COUNT, WINDOW_PIXELS = 6, 128
"""Number of windows of a held-out photograph that are measured, and their side in pixels."""
REACH_PIXELS = 20
"""Pixels around a window of the downscaled photograph on which the first zoom may depend."""
LOSS_WEIGHTS = {
    "A": 1000.0,
    "B": 2000.0,
    "D": 2000.0,
    "grid": 1.5,
    "lattice": 2.0,
    "any_period": 5.0,
}


def crop_middle(image: Tensor) -> Tensor:
    """Crop the middle (B, 3, H / 4, W / 4) of an image (B, 3, H, W)."""
    h, w = image.shape[-2:]
    return image[..., h * 3 // 8 : h * 5 // 8, w * 3 // 8 : w * 5 // 8]


def compute_losses(
    net: nn.Module, start: nn.Module, lq: Tensor, hr: Tensor, divisor: Tensor
) -> dict[str, Tensor]:
    """Zoom twice and compute the losses; the gradients of B and D flow through both zooms.

    The errors of each patch of ``lq`` (B, 3, H, W) are divided by its ``divisor`` (B, 1, 1, 1).
    """

    def error(result: Tensor, wanted: Tensor) -> Tensor:
        return ((result - wanted) / divisor).square().mean()

    x4 = net(lq)
    view = crop_middle(x4).clamp(0, 1)
    x16 = net(view)
    with torch.no_grad():
        x4_before, x16_before = start(lq), start(view)
    lattice, any_period = measure_repetition(x16)
    return {
        "A": error(x4, hr),
        "B": error(resize(x16, *view.shape[-2:]), crop_middle(hr)),
        "D": error(x4, x4_before) + error(x16, x16_before),
        "grid": compute_grid_loss(x4) + compute_grid_loss(x16),
        "lattice": lattice,
        "any_period": any_period,
    }


def train(start_from: Path, out: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0) -> None:
    """Fine-tune the weights in `start_from`, or continue from `checkpoint` after an interruption."""
    torch.manual_seed(seed)
    pairs = read_pairs(seed)
    pixels = np.array([pair.lr[0].numel() for pair in pairs])
    training = Training(start_from, MUON_LR, ADAM_LR, DECAY_SHARE)
    start = copy.deepcopy(training.net).requires_grad_(False)
    first = training.resume(checkpoint)
    for step in training.run_steps(first, steps, out, checkpoint):
        rng = np.random.default_rng([seed, step])
        lq, hr = data.sample_patches(pairs, rng, BATCH, SIDE, pixels / pixels.sum())
        for patch in lq:
            if rng.random() < JPEG_SHARE:
                patch.copy_(data.apply_random_jpeg(patch, rng, JPEG_QUALITIES))
        divisor = torch.ones(1)
        if rng.random() < SMOOTH_CHANCE:
            lq, hr, divisor = make_smooth(lq, hr, rng)
            divisor = divisor.clamp(min=MIN_DIVISOR)
        lq = lq.to(DEVICE, memory_format=torch.channels_last)
        losses = compute_losses(training.net, start, lq, hr.to(DEVICE), divisor.to(DEVICE))
        loss = sum(
            (LOSS_WEIGHTS[name] * value for name, value in losses.items()),
            torch.zeros((), device=DEVICE),
        )
        training.learn(loss, **losses)


def measure_two_zoom_errors(upscale: Upscale) -> Iterator[tuple[str, float, float]]:
    """Yield (name, error of the first zoom, error of the second zoom) of each held-out photograph.

    Each photograph is downscaled 4x and then enlarged twice, the second time with the color fix of the
    chains. The second result is downscaled to the photograph's size. The error of both results is their
    root mean squared difference from the photograph, in levels of 255, in windows chosen at random and
    without a border of 4 pixels.
    """
    for name in data.HELD_OUT:
        image = data.crop_to_multiple(data.read_sharp_picture(name))
        hr, lr = from_pillow(image), from_pillow(data.downscale(image))
        rows, columns = (side // WINDOW_PIXELS for side in hr.shape[2:])
        squares = []
        for place in np.random.default_rng(1).permutation(rows * columns)[:WINDOW_COUNT].tolist():
            y, x = (WINDOW_PIXELS * index for index in divmod(place, columns))
            top, left = (max(0, start // data.SCALE - REACH_PIXELS) for start in (y, x))
            end = WINDOW_PIXELS // data.SCALE + REACH_PIXELS
            shown = lr[..., top : y // data.SCALE + end, left : x // data.SCALE + end]
            first = cut_window(upscale(shown), y - top * data.SCALE, x - left * data.SCALE)
            second = upscale(first)
            second = wavelet_align(second, resize(first, *second.shape[-2:])).clamp(0, 1)
            results = first, resize(second, WINDOW_PIXELS, WINDOW_PIXELS).clamp(0, 1)
            errors = [(result - cut_window(hr, y, x)) * 255 for result in results]
            squares.append([float(crop_border(error).square().mean()) for error in errors])
        first_error, second_error = np.sqrt(np.mean(squares, 0)).tolist()
        yield name, first_error, second_error


def cut_window(image: Tensor, y: int, x: int) -> Tensor:
    return image[..., y : y + WINDOW_PIXELS, x : x + WINDOW_PIXELS]


def crop_border(image: Tensor) -> Tensor:
    return image[..., BORDER:-BORDER, BORDER:-BORDER]
