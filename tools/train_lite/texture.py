"""Train the texture model, which draws clean edges in every step of a chain as its teacher does.

The network imitates Real-ESRGAN in the first steps of a zoom. Its inputs are photographs, JPEG files, and
crops of the teacher's results and of its own.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from coz.color.align import compute_luma

from . import data
from .loop import DEVICE, Training
from .losses import compute_grid_loss, measure_repetition
from .teachers import FOLDER, load_real_esrgan

STEPS = 4600
FLOAT32_SHARE = 0.22
"""Share of the steps, at the end, that run in float32 with the losses against lattices. The rounding of
bfloat16 causes lattices."""
DECAY_SHARE = 1.0
"""Share of the steps, at the end, over which the learning rates fall to 0."""
SIDE = 48
BATCH = 4
DEPTH_CHANCES = (0.4, 0.35, 0.25)
"""Chances that a patch is cut from a photograph, from the first result of a chain, or from the second."""
OWN_CHANCE = 0.6
"""Chance that the patch is cut from the network's own results instead of the teacher's."""
ZOOMS = len(DEPTH_CHANCES)
"""Chain steps in which the network imitates the teacher."""
CROPS = 300
"""Crops of photographs that the teacher enlarges, each followed by crops of the results."""
CROP_SIDE_PIXELS, DEEP_CROP_SIDE_PIXELS = 64, 56
"""Side in pixels of a crop of a photograph, and of a crop of a result."""
FULL_SIZE_SHARE = 0.4
"""Share of the crops that are cut at the size of the file, at which photographs are blurred."""
JPEG_SHARE, JPEG_QUALITIES = 0.5, (40, 96)
MUON_LR = 7e-4
ADAM_LR = 3e-4
LOSS_WEIGHTS = {"imitation": 120.0, "grid": 1.5, "lattice": 2.0, "any_period": 5.0}


class Lesson(NamedTuple):
    """A chain of the teacher, of ``ZOOMS`` steps; images are (3, H, W) uint8."""

    crop: Tensor
    results: list[Tensor]
    corners: list[list[int]]
    """Upper left corner (y, x) of the next crop in each result but the last."""

    def cut_deep_crop(self, result: Tensor, depth: int) -> Tensor:
        y, x = self.corners[depth]
        return result[:, y : y + DEEP_CROP_SIDE_PIXELS, x : x + DEEP_CROP_SIDE_PIXELS]


def make_lessons(seed: int, teacher: nn.Module) -> list[Lesson]:
    """Make lessons from crops of photographs, half of them JPEG files, with the teacher's results."""
    rng = np.random.default_rng(seed)
    lessons = []
    for _ in range(CROPS):
        name = rng.choice(data.PHOTOGRAPHS)
        full_size = rng.random() < FULL_SIZE_SHARE
        image = data.read_picture(name) if full_size else data.read_sharp_picture(name)
        crop = data.crop_randomly(data.to_tensor(image), CROP_SIDE_PIXELS, rng)
        if rng.random() < JPEG_SHARE:
            crop = to_bytes(data.apply_random_jpeg(crop.float() / 255, rng, JPEG_QUALITIES))
        lesson = Lesson(crop, [enlarge(teacher, crop)], [])
        for depth in range(ZOOMS - 1):
            last = lesson.results[-1].shape[-1] - DEEP_CROP_SIDE_PIXELS
            lesson.corners.append(rng.integers(0, last + 1, 2).tolist())
            deep_crop = lesson.cut_deep_crop(lesson.results[-1], depth)
            lesson.results.append(enlarge(teacher, deep_crop))
        lessons.append(lesson)
    return lessons


def to_bytes(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().byte().cpu()


@torch.inference_mode()
def enlarge(teacher: nn.Module, crop: Tensor) -> Tensor:
    """Enlarge a crop by the teacher in bfloat16, which is twice as fast on a CPU.

    The last layer runs in float32, because bfloat16 would round the levels of the image.
    """
    shown = crop[None].to(DEVICE, memory_format=torch.channels_last).float() / 255
    with torch.autocast(DEVICE, torch.bfloat16):
        features = teacher.model[:-1](shown)
    return to_bytes(teacher.model[-1](features.float())[0])


def sample_patches(
    lessons: list[Lesson], net: nn.Module, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Sample a batch of LR patches and their targets.

    A later step starts from a crop of the teacher's result or of the network's own, so that the
    network also learns to correct the errors of its own earlier steps.
    """
    patches = []
    depths = rng.choice(ZOOMS, BATCH, p=DEPTH_CHANCES).tolist()
    for index, depth in zip(rng.choice(len(lessons), BATCH), depths, strict=True):
        lesson = lessons[index]
        is_own = rng.random() < OWN_CHANCE
        crop = lesson.crop
        for earlier in range(depth):
            result = lesson.results[earlier]
            if is_own:
                with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
                    shown = crop[None].to(DEVICE, memory_format=torch.channels_last)
                    result = to_bytes(net(shown.float() / 255)[0].float())
            crop = lesson.cut_deep_crop(result, earlier)
        pair = data.Pair(lesson.results[depth], crop)
        patches.append(data.sample_patches([pair], rng, 1, SIDE, np.ones(1)))
    lr, hr = zip(*patches, strict=True)
    return torch.cat(lr), torch.cat(hr)


def compute_imitation_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Compute the absolute errors of pixels, colors and spectrum.

    Errors at the edges of a patch count too: without them, frames get lines along their edges.
    Color errors count again, because two steps enlarge a small colored speck to a square.
    """
    error = sr - hr
    spectrum = torch.fft.rfft2(error, norm="ortho").abs()
    return error.abs().mean() + (error - compute_luma(error)).abs().mean() + 0.1 * spectrum.mean()


def train(start_from: Path, out: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0) -> None:
    """Train the network in `start_from`, or continue from `checkpoint` after an interruption."""
    torch.manual_seed(seed)
    file = FOLDER / f"texture_{seed}.pt"
    if not file.exists():
        print("Running the teacher: this takes half an hour on one core", flush=True)
        teacher = load_real_esrgan().to(DEVICE, memory_format=torch.channels_last)
        torch.save([tuple(lesson) for lesson in make_lessons(seed, teacher)], file)
    lessons = [Lesson(*lesson) for lesson in torch.load(file, weights_only=True)]
    training = Training(start_from, MUON_LR, ADAM_LR, DECAY_SHARE, has_limited_reach=True)
    first = training.resume(checkpoint)
    for step in training.run_steps(first, steps, out, checkpoint):
        lr, hr = sample_patches(lessons, training.net, np.random.default_rng([seed, step]))
        is_precise = step >= (1 - FLOAT32_SHARE) * steps
        with torch.autocast(DEVICE, torch.bfloat16, enabled=not is_precise):
            sr = training.net(lr.to(DEVICE, memory_format=torch.channels_last)).float()
        losses = {"imitation": compute_imitation_loss(sr, hr.to(DEVICE))}
        if is_precise:
            lattice, any_period = measure_repetition(sr)
            losses |= {"grid": compute_grid_loss(sr), "lattice": lattice, "any_period": any_period}
        loss = sum(
            (LOSS_WEIGHTS[name] * value for name, value in losses.items()),
            torch.zeros((), device=DEVICE),
        )
        training.learn(loss, **losses)
