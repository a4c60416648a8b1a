"""Training of the texture model: clean edges first, then detail that is not in the input.

In the first two steps of a chain it imitates a teacher, which removes artefacts and sharpens. In
deeper steps the teacher adds no detail, and a discriminator teaches it: it compares results for crops
of earlier results with photographs and synthetic noise.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from . import data
from .loop import DEVICE, Training
from .losses import (
    LOG_VARIANCE,
    agreement_loss,
    chroma,
    chroma_loss,
    grid_loss,
    high_pass,
    laplacian,
    moments,
    repetition,
    texture_loss,
)
from .teachers import FOLDER, load_real_esrgan

STEPS = 2200
INVENTING_SHARE = 0.6
"""Share of the steps, at the end, in which the network also learns to invent; before, it only imitates
the teacher. The rates fall from the start: at full rates the network forgets the teacher's
clean edges while it learns to invent."""
DECAY = 1.0  # last share of the steps, over which the rates fall to 0
MARGIN = 8
"""LR pixels around a patch that are shown and not judged. Without them the network learns to start
its texture from the zeros that its convolutions pad with, and leaves the middle of a frame empty."""
CROP_POSITION_CHANCES = (0.08, 0.84, 0.08)
"""Chances that the judged part touches the first border, neither, or the last one. If it never touched
a border, frames would get lines along their edges."""
JUDGED_LR_SIDE = 32
SIDE = JUDGED_LR_SIDE + 2 * MARGIN
TEACHER_PATCHES, OWN_PATCHES = 4, 2
"""Patches in a batch with a target by the teacher, and crops of the network's own results."""
TEACHER_PATCH_CHANCES = (0.5, 0.2, 0.3)
"""Chances that a teacher patch is from a photograph, the teacher's result or the network's own."""
TAUGHT_MARGIN = 4
TAUGHT_ZOOMS = 2
"""Chain steps in which the network imitates the teacher; in later ones, the teacher adds nothing."""
DEPTH = 5  # chain steps after which a result is not pooled
POOL = 192
CROPS = 300
"""Crops of photographs that the teacher enlarges, each followed by a crop of the result."""
CROP, DEEP_CROP = 64, 56
FULL_SIZE = 0.4  # share of the crops at the file's size, at which photographs are blurred
JPEG_SHARE, JPEG_QUALITIES = 0.5, (40, 96)
REAL = ("camera", "chelsea", "coffee", "grass", "retina")
"""Photographs that the discriminator sees. Left out are stars, because points of light everywhere
look like noise, and bricks and gravel, whose joints become cracks in faces."""
REAL_PATCHES = 1600
MUON_LR = 7e-4
ADAM_LR = 3e-4
JUDGE_LR = 8e-4
JUDGE_STEPS = 2  # discriminator steps for each step of the network
WEIGHTS = {
    "imitation": 120.0,
    "adversarial": 1.0,
    "agreement": 1.0,
    "texture": 4.0,
    "grid": 3.0,
    "lattice": 4.0,
    "any_period": 15.0,
    "chroma": 20.0,
}
DISCRIMINATOR_CROP_SIDE = 7 * 16


class Discriminator(nn.Sequential):
    """A patch discriminator: each of its outputs sees 70 x 70 pixels."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for c_in, c_out, kernel, stride in (
            (1, 32, 4, 2),
            (32, 64, 4, 2),
            (64, 96, 4, 2),
            (96, 96, 3, 1),
            (96, 96, 3, 1),
        ):
            convolution = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2 - (kernel % 2 == 0))
            layers += [spectral_norm(convolution), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv2d(96, 1, 3, padding=1)))
        super().__init__(*layers)


def turned_photograph(name: str, side: int, rng: np.random.Generator) -> data.Image.Image:
    """At a random angle: upright edges in photographs would let seams between LR pixels pass as real."""
    angle = rng.uniform(0, 90)
    image = data.picture(name).rotate(angle, data.Image.Resampling.BICUBIC)
    # the largest upright square inside the turned picture
    half = min(image.size) / (np.sin(np.radians(angle)) + np.cos(np.radians(angle))) / 2
    x, y = image.width / 2, image.height / 2
    large = max(side, round(2 * half * data.SHARP_SCALES[name] * rng.choice([0.8, 0.6])))
    box = (x - half, y - half, x + half, y + half)
    return data.recoloured(image.resize((large, large), data.Image.Resampling.LANCZOS, box), rng)


def grain(side: int, rng: np.random.Generator) -> data.Image.Image:
    """Synthetic noise like clouds, stone or skin, whose strength varies over the image."""
    field = data.Image.fromarray(rng.normal(size=(5, 5)).astype(np.float32))
    strength = np.exp(0.5 * np.asarray(field.resize((side, side), data.Image.Resampling.BICUBIC)))
    pixels = 128 + 20 * data.fractal_noise(side, rng) * strength
    return data.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


def real_patches(
    rng: np.random.Generator, count: int, side: int = JUDGED_LR_SIDE * data.SCALE
) -> Tensor:
    """Real patches for the discriminator, uint8, sharp, neither flat nor mere noise.

    Each photograph gives the same number, a seventh, so that the grass does not outvote the rest;
    two sevenths are synthetic.
    """
    patches = []
    for name in [*REAL, "", ""]:
        found = 0
        while found < count // (len(REAL) + 2):
            image = turned_photograph(name, side, rng) if name else grain(2 * side, rng)
            pixels = data.to_tensor(image).float() / 255
            for _ in range(20 if name else 1):
                y, x = rng.integers(0, image.width - side + 1, 2)
                patch = pixels[None, :, y : y + side, x : x + side]
                log_variance, kurtosis = moments(laplacian(patch))
                if kurtosis < 3.5 or log_variance < LOG_VARIANCE[0] - 1.5:
                    continue
                patches.append((patch * 255).byte())
                found += 1
    return torch.cat(patches)


class Lesson(NamedTuple):
    """Two chain steps of the teacher; all (3, H, W) uint8 but the corner."""

    crop: Tensor
    result: Tensor
    corner: list[int]
    """Where in the result the second crop begins, y and x."""
    deep_result: Tensor

    def cut_deep(self, result: Tensor) -> Tensor:
        y, x = self.corner
        return result[:, y : y + DEEP_CROP, x : x + DEEP_CROP]


def make_lessons(seed: int, teacher: nn.Module) -> list[Lesson]:
    """Crops of photographs, half of them as JPEG files, and crops of what the teacher made of them."""
    rng = np.random.default_rng(seed)
    lessons = []
    for _ in range(CROPS):
        name = rng.choice(data.PHOTOGRAPHS)
        full_size = rng.random() < FULL_SIZE
        image = data.picture(name) if full_size else data.sharp_picture(name)
        crop = data.random_crop(data.to_tensor(image), CROP, rng)
        if rng.random() < JPEG_SHARE:
            crop = to_bytes(data.apply_random_jpeg(crop.float() / 255, rng, JPEG_QUALITIES))
        result = enlarge(teacher, crop)
        corner = [int(rng.integers(0, CROP * data.SCALE - DEEP_CROP + 1)) for _ in range(2)]
        lesson = Lesson(crop, result, corner, result)
        lessons.append(lesson._replace(deep_result=enlarge(teacher, lesson.cut_deep(result))))
    return lessons


def to_bytes(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round().byte().cpu()


@torch.inference_mode()
def enlarge(teacher: nn.Module, crop: Tensor) -> Tensor:
    """Enlarge in bfloat16, twice as fast on a CPU, but for the last layer, which would round levels."""
    shown = crop[None].to(DEVICE, memory_format=torch.channels_last).float() / 255
    with torch.autocast(DEVICE, torch.bfloat16):
        features = teacher.model[:-1](shown)
    return to_bytes(teacher.model[-1](features.float())[0])


class OwnResults:
    """A pool of crops of the model's results, each ready to be zoomed again."""

    def __init__(self) -> None:
        self.crops: list[tuple[Tensor, int]] = []

    def state_dict(self) -> dict[str, list[tuple[Tensor, int]]]:
        return {"crops": self.crops}

    def load_state_dict(self, state: dict[str, list[tuple[Tensor, int]]]) -> None:
        self.crops = state["crops"]

    def take(self, rng: np.random.Generator, count: int) -> list[tuple[Tensor, int]]:
        if len(self.crops) < count:
            return []
        return [self.crops[i] for i in rng.choice(len(self.crops), count, replace=False)]

    def put(self, rng: np.random.Generator, sr: Tensor, depths: list[int]) -> None:
        for image, depth in zip(sr.detach().clamp(0, 1).cpu(), depths, strict=True):
            if not TAUGHT_ZOOMS <= depth + 1 < DEPTH:
                continue
            y, x = rng.integers(0, sr.shape[-1] - SIDE + 1, 2)
            entry = (image[:, y : y + SIDE, x : x + SIDE].clone(), depth + 1)
            if len(self.crops) < POOL:
                self.crops.append(entry)
            else:
                self.crops[rng.integers(POOL)] = entry


def sample(
    lessons: list[Lesson], net: nn.Module, rng: np.random.Generator
) -> tuple[Tensor, Tensor, list[int]]:
    """A batch of LR patches, what they are to become, and the number of chain steps before each.

    A second step begins with a crop of the teacher's result or of the network's own, so that the
    network also learns to correct its own first step.
    """
    patches, depths = [], []
    for index, kind in zip(
        rng.choice(len(lessons), TEACHER_PATCHES),
        rng.choice(3, TEACHER_PATCHES, p=TEACHER_PATCH_CHANCES),
        strict=True,
    ):
        lesson = lessons[index]
        pair = data.Pair(lesson.result, lesson.crop)
        if kind:
            result = lesson.result
            if kind == 2:
                with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
                    shown = lesson.crop[None].to(DEVICE, memory_format=torch.channels_last)
                    result = to_bytes(net(shown.float() / 255)[0].float())
            pair = data.Pair(lesson.deep_result, lesson.cut_deep(result))
        patches.append(data.sample([pair], rng, 1, SIDE, np.ones(1)))
        depths.append(min(int(kind), 1))
    lr, hr = (torch.cat(parts) for parts in zip(*patches, strict=True))
    return lr, hr, depths


def cut(image: Tensor, corner: np.ndarray, side: int) -> Tensor:
    y, x = corner
    return image[..., y : y + side, x : x + side]


def judge_crop(judge: Discriminator, image: Tensor, corner: np.ndarray) -> Tensor:
    """Judge a crop. Offsets must vary: with a fixed one, the strides would teach a lattice."""
    with torch.autocast(image.device.type, torch.bfloat16):
        return judge(high_pass(cut(image, corner, DISCRIMINATOR_CROP_SIDE))).float()


def imitation_loss(sr: Tensor, hr: Tensor) -> Tensor:
    """Absolute errors of pixels, colours and spectrum, but for what lies along the edges.

    Colours count again, because two steps enlarge a small wrong speck to a coloured square.
    """
    error = F.pad(sr - hr, [-TAUGHT_MARGIN * data.SCALE] * 4)
    spectrum = torch.fft.rfft2(error, norm="ortho").abs()
    return error.abs().mean() + chroma(error).abs().mean() + 0.1 * spectrum.mean()


def train(
    start_from: Path, target: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0
) -> None:
    """Train on from the weights in `start_from`, or go on from `checkpoint` after a break."""
    torch.manual_seed(seed)
    kept = FOLDER / f"texture_{seed}.pt"
    if not kept.exists():
        print("asking the teacher: ten minutes on one core", flush=True)
        teacher = load_real_esrgan().to(DEVICE, memory_format=torch.channels_last)
        torch.save([tuple(lesson) for lesson in make_lessons(seed, teacher)], kept)
    lessons = [Lesson(*lesson) for lesson in torch.load(kept, weights_only=True)]
    real = real_patches(np.random.default_rng(seed), REAL_PATCHES)
    training = Training(start_from, MUON_LR, ADAM_LR, DECAY)
    judge = Discriminator().to(DEVICE, memory_format=torch.channels_last)
    judge_update = torch.optim.Adam(judge.parameters(), JUDGE_LR, betas=(0.5, 0.99))
    pool = OwnResults()
    training.parts |= {"judge": judge, "judge update": judge_update, "pool": pool}
    first = training.resume(checkpoint)
    for step in training.steps(first, steps, target, checkpoint):
        rng = np.random.default_rng([seed, step])
        lr, hr, depths = sample(lessons, training.net, rng)
        inventing = step >= (1 - INVENTING_SHARE) * steps
        own = pool.take(rng, OWN_PATCHES) if inventing else []
        shown = torch.cat([lr, *(crop[None] for crop, _ in own)])
        shown = shown.to(DEVICE, memory_format=torch.channels_last)
        # float32, as in every use of the model: what bfloat16 rounds away becomes a lattice
        sr = training.net(shown)
        losses = {"imitation": imitation_loss(sr[:TEACHER_PATCHES], hr.to(DEVICE))}
        depths += [depth for _, depth in own]
        corner = rng.choice([0, MARGIN, 2 * MARGIN], 2, p=CROP_POSITION_CHANCES)
        sr = cut(sr, corner * data.SCALE, JUDGED_LR_SIDE * data.SCALE)
        pool.put(rng, sr, depths)
        lattice, any_period = repetition(sr)
        losses |= {"grid": grid_loss(sr), "lattice": lattice, "any_period": any_period}

        if own:
            sr, shown = sr[TEACHER_PATCHES:], cut(shown[TEACHER_PATCHES:], corner, JUDGED_LR_SIDE)
            for _ in range(JUDGE_STEPS):
                photograph = real[torch.from_numpy(rng.integers(0, len(real), len(sr)))]
                photograph = data.turned(photograph, int(rng.integers(8)))[:, rng.permutation(3)]
                corner = rng.integers(
                    0, JUDGED_LR_SIDE * data.SCALE - DISCRIMINATOR_CROP_SIDE + 1, 2
                )
                on_real = judge_crop(judge, photograph.to(DEVICE).float() / 255, corner)
                on_fake = judge_crop(judge, sr.detach(), corner)
                judge_loss = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
                judge_update.zero_grad()
                judge_loss.backward()
                judge_update.step()
            judge.requires_grad_(False)
            losses |= {
                "adversarial": -judge_crop(judge, sr, corner).mean(),
                "agreement": agreement_loss(sr, shown),
                "texture": texture_loss(sr),
                "chroma": chroma_loss(sr, shown),
            }
            judge.requires_grad_(True)
        loss = sum(
            (WEIGHTS[name] * value for name, value in losses.items()),
            torch.zeros((), device=DEVICE),
        )
        training.learn(loss, **losses)
