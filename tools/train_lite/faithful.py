"""Training of the faithful model: regression on pictures reduced by Pillow's bicubic filter."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from . import data
from .loop import Training
from .losses import grid_loss
from .teachers import FOLDER, ensemble, load_span

STEPS = 6000
BATCH, SIDE = 4, 48
"""Patches of a step and LR pixels of their side."""
LATE_BATCH, LATE_SIDE = 2, 64
"""The same in the precise part, where fewer pixels lie near the zeros that convolutions pad with."""
MUON_LR = 2e-3
ADAM_LR = 7e-4
DECAY = 0.4  # last share of the steps, over which the rates fall to 0
SQUARED = 0.3  # last share of the steps, with squared errors: PSNR counts those
PRECISE = 0.3
"""Last share of the steps, in float32, with faint patches and the grid loss. Before it bfloat16,
which rounds a bright pixel to whole grey levels: a network trained so draws a 4-pixel staircase
into smooth shading. In PSNR it hardly counts; in a chain every step enlarges it."""
JPEG_SHARE = 0.35
JPEG_QUALITIES = (50, 95)
FAINTEST = 0.05
GRID_SHARE = 0.002
TRUTH_SHARE = 0.5
VARIANTS, NATIVE_CROPS, CROP = 1, 2, 160
DRAWN = 200


def make_pairs(seed: int, teacher: nn.Module) -> list[data.Pair]:
    """Photographs reduced, as they are, and as the teacher enlarges them; drawings at the end.

    The larger picture of a pair is what the network is to give: the teacher's result, averaged
    with the truth where there is one. Both are nearer to the mean of all that the input may show
    than the truth alone.
    """
    rng = np.random.default_rng(seed)
    pairs = []

    def teach(lr: Tensor, hr: Tensor | None = None) -> None:
        taught = ensemble(teacher, lr[None].float() / 255)[0] * 255
        mixed = taught if hr is None else taught.lerp(hr.float(), TRUTH_SHARE)
        pairs.append(data.Pair(mixed.round().byte(), lr))

    for image in data.photograph_variants(rng, VARIANTS):
        pair = data.make_pair(image)
        teach(pair.lr, pair.hr)
    for name in data.PHOTOGRAPHS:
        for _ in range(NATIVE_CROPS):
            teach(data.random_crop(data.to_tensor(data.sharp_picture(name)), CROP, rng))
            teach(data.random_crop(pairs[-1].hr, CROP, rng))
    return pairs + [data.make_pair(image) for image in data.synthetic_images(rng, DRAWN)]


def faint(lq: Tensor, hr: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Half of the patches with less contrast, not rounded: as smooth as a deep zoom is.

    Also returns each patch's contrast, by which its error is divided: all count alike.
    """
    gain = np.where(rng.random(len(lq)) < 0.5, 1, FAINTEST ** rng.random(len(lq)))
    contrast = torch.from_numpy(gain.astype(np.float32)).view(-1, 1, 1, 1)
    mean = lq.mean((2, 3), keepdim=True)
    return mean + (lq - mean) * contrast, mean + (hr - mean) * contrast, contrast


def loss_at(progress: float, sr: Tensor, hr: Tensor, contrast: Tensor) -> Tensor:
    error = (sr - hr) / contrast
    return error.square().mean() if progress > 1 - SQUARED else error.abs().mean()


def train(
    start_from: Path, target: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0
) -> None:
    """Train on from the weights in `start_from`, or go on from `checkpoint` after a break.

    `target` holds the averaged weights.
    """
    torch.manual_seed(seed)
    kept = FOLDER / f"faithful_{seed}.pt"
    if not kept.exists():
        print("asking the teacher: ten minutes on one core", flush=True)
        torch.save(make_pairs(seed, load_span()), kept)
    pairs = [data.Pair(*pair) for pair in torch.load(kept, weights_only=True)]
    pixels = np.array([pair.lr[0].numel() for pair in pairs])
    training = Training(start_from, MUON_LR, ADAM_LR, DECAY)
    device = training.device
    for step in training.steps(steps, target, checkpoint):
        # a generator per step, so that a resumed training sees what an unbroken one sees
        rng = np.random.default_rng([seed, step])
        precise = step >= (1 - PRECISE) * steps
        batch, side = (LATE_BATCH, LATE_SIDE) if precise else (BATCH, SIDE)
        lq, hr = data.sample(pairs, rng, batch, side, pixels / pixels.sum())
        for patch in lq:
            if rng.random() < JPEG_SHARE:
                patch.copy_(data.compress(patch, rng, JPEG_QUALITIES))
        contrast = torch.ones(1)
        if precise:
            lq, hr, contrast = faint(lq, hr, rng)
        lq = lq.to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=not precise):
            sr = training.net(lq)
        loss = loss_at(step / steps, sr.float(), hr.to(device), contrast.to(device))
        if precise:
            loss = loss * (1 + GRID_SHARE * grid_loss(sr))
        training.learn(loss)
