"""Fine-tuning of a trained model through two zooms, and the measure of what it is for.

The losses are those of OracleZoom. A holds the first zoom to the target; B holds the second one, reduced to
the size of its view, to the middle of the target; D holds both to what the network gave before. OracleZoom
takes LPIPS for A and B, whose network no package index has: here they are squared errors.
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
from .losses import grid_loss, repetition
from .scoring import BORDER, Upscale

STEPS = 400
BATCH, SIDE = 2, 48
"""Number of patches in a step and their side; so many pixels in the middle of a result are zoomed again."""
MUON_LR = 4e-4
ADAM_LR = 2e-4
DECAY = 1.0  # last share of the steps, over which the rates fall to 0
SMOOTH_CHANCE = 1 / 4
"""Chance that the patches of a step are smooth or of low contrast: see `faithful.make_smooth`."""
MIN_DIVISOR = 0.25
"""Limits how much more the errors of smooth patches count: with the least of `make_smooth` all of a
step's gradient would be theirs."""
WINDOWS, WINDOW = 6, 128
"""Number of windows of a held-out photograph that are measured, and their side in pixels."""
REACH = 20
"""Pixels around a window of the reduced photograph that the first zoom needs at most."""
WEIGHTS = {"A": 1000.0, "B": 2000.0, "D": 2000.0, "grid": 1.5, "lattice": 2.0, "any_period": 5.0}


def middle(image: Tensor) -> Tensor:
    """Cut out the middle quarter (B, 3, H / 4, W / 4) of an image."""
    h, w = image.shape[-2:]
    return image[..., h * 3 // 8 : h * 5 // 8, w * 3 // 8 : w * 5 // 8]


def cross_scale_losses(
    net: nn.Module, start: nn.Module, lq: Tensor, hr: Tensor, divisor: Tensor
) -> dict[str, Tensor]:
    """Zoom twice; the gradient of B and D runs through both zooms.

    The errors of each patch of ``lq`` (B, 3, H, W) are divided by its ``divisor`` (B, 1, 1, 1).
    """

    def error(result: Tensor, wanted: Tensor) -> Tensor:
        return ((result - wanted) / divisor).square().mean()

    x4 = net(lq)
    view = middle(x4).clamp(0, 1)
    x16 = net(view)
    with torch.no_grad():
        x4_before, x16_before = start(lq), start(view)
    lattice, any_period = repetition(x16)
    return {
        "A": error(x4, hr),
        "B": error(resize(x16, *view.shape[-2:]), middle(hr)),
        "D": error(x4, x4_before) + error(x16, x16_before),
        "grid": grid_loss(x4) + grid_loss(x16),
        "lattice": lattice,
        "any_period": any_period,
    }


def train(
    start_from: Path, target: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0
) -> None:
    """Train on from the weights in `start_from`, or go on from `checkpoint` after a break."""
    torch.manual_seed(seed)
    pairs = read_pairs(seed)
    pixels = np.array([pair.lr[0].numel() for pair in pairs])
    training = Training(start_from, MUON_LR, ADAM_LR, DECAY)
    start = copy.deepcopy(training.net).requires_grad_(False)
    first = training.resume(checkpoint)
    for step in training.steps(first, steps, target, checkpoint):
        rng = np.random.default_rng([seed, step])
        lq, hr = data.sample(pairs, rng, BATCH, SIDE, pixels / pixels.sum())
        for patch in lq:
            if rng.random() < JPEG_SHARE:
                patch.copy_(data.apply_random_jpeg(patch, rng, JPEG_QUALITIES))
        divisor = torch.ones(1)
        if rng.random() < SMOOTH_CHANCE:
            lq, hr, divisor = make_smooth(lq, hr, rng)
            divisor = divisor.clamp(min=MIN_DIVISOR)
        lq = lq.to(DEVICE, memory_format=torch.channels_last)
        losses = cross_scale_losses(training.net, start, lq, hr.to(DEVICE), divisor.to(DEVICE))
        loss = sum(
            (WEIGHTS[name] * value for name, value in losses.items()),
            torch.zeros((), device=DEVICE),
        )
        training.learn(loss, **losses)


def two_zoom_errors(upscale: Upscale) -> Iterator[tuple[str, float, float]]:
    """(name, error of the first zoom, error of the second one) for the held-out photographs.

    The photograph, reduced by 4, is enlarged twice, the second time with the colour fix of the chains, and
    the second result is reduced to the photograph's size. Both are compared with the photograph: root mean
    squared error in grey levels, without a border of 4 pixels, over windows chosen at random.
    """
    for name in data.HELD_OUT:
        image = data.crop_to_multiple(data.sharp_picture(name))
        hr, lr = from_pillow(image), from_pillow(data.reduced(image))
        rows, columns = (side // WINDOW for side in hr.shape[2:])
        squares = []
        for place in np.random.default_rng(1).permutation(rows * columns)[:WINDOWS].tolist():
            y, x = (WINDOW * index for index in divmod(place, columns))
            top, left = (max(0, start // data.SCALE - REACH) for start in (y, x))
            end = WINDOW // data.SCALE + REACH
            shown = lr[..., top : y // data.SCALE + end, left : x // data.SCALE + end]
            first = cut(upscale(shown), y - top * data.SCALE, x - left * data.SCALE)
            second = upscale(first)
            second = wavelet_align(second, resize(first, *second.shape[-2:])).clamp(0, 1)
            results = first, resize(second, WINDOW, WINDOW).clamp(0, 1)
            errors = [(result - cut(hr, y, x)) * 255 for result in results]
            squares.append([float(inside(error).square().mean()) for error in errors])
        first_error, second_error = np.sqrt(np.mean(squares, 0)).tolist()
        yield name, first_error, second_error


def cut(image: Tensor, y: int, x: int) -> Tensor:
    return image[..., y : y + WINDOW, x : x + WINDOW]


def inside(image: Tensor) -> Tensor:
    return image[..., BORDER:-BORDER, BORDER:-BORDER]
