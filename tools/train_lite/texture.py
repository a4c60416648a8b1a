"""Training of the texture model: it must invent detail, also from crops of its own results.

A discriminator compares its results with photographs and drawn noise. Two patches in five are crops of its own
earlier results, because in a chain every input but the first is one.
"""

import copy
import io
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from . import data
from .faithful import follow, rate_at, save, training_pairs
from .losses import (
    LOG_VARIANCE,
    agreement_loss,
    chroma_loss,
    grid_loss,
    high_pass,
    laplacian,
    moments,
    repetition,
    texture_loss,
)
from .net import CompactNet, optimisers

STEPS = 2550
DECAY = 1 / 3  # last share of the steps, over which the rates fall to 0
MARGIN = 8
"""LR pixels around a patch that are shown and not judged. Without them the network learns to start
its texture from the zeros that its convolutions pad with, and leaves the middle of a frame empty."""
AT_BORDER = (0.08, 0.84, 0.08)
"""Chance that the judged part begins at one border, lies in the middle, ends at the other border.
Never at a border, and frames get lines along their edges."""
INNER = 32
SIDE = INNER + 2 * MARGIN
PAIRED, NATIVE, SMOOTH, OWN = 1, 1, 1, 2  # patches of each kind in a batch
DEPTH = 5  # zooms after which a pooled result is dropped
POOL = 192
REAL_PATCHES = 1600
MUON_LR = 6e-4
ADAM_LR = 2e-4
JUDGE_LR = 8e-4
JUDGE_STEPS = 2  # for each of the network
WEIGHTS = (1.0, 1.0, 2.0, 3.0, 4.0, 15.0, 20.0)
"""Adversarial, agreement, texture, grid, repetition at 4 pixels and at any period, chroma."""
ANY_PERIOD_FROM = 700  # when there is texture
JUDGED = 7 * 16  # pixels of a side that the discriminator sees, at any offset
STRENGTH = 0.9
"""Share of the texture weights in the saved file; the rest are the faithful ones (ESRGAN's network
interpolation). Less is calmer and emptier."""
SNAPSHOT = 100


class Discriminator(nn.Sequential):
    """Judges patches of 54 pixels."""

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
    """At any angle: what lies along the axes would excuse seams between LR pixels."""
    angle = rng.uniform(0, 90)
    image = data.picture(name).rotate(angle, data.Image.Resampling.BICUBIC)
    # the largest upright square inside the turned picture
    half = min(image.size) / (np.sin(np.radians(angle)) + np.cos(np.radians(angle))) / 2
    x, y = image.width / 2, image.height / 2
    large = max(side, round(2 * half * data.PHOTOGRAPHS[name] * rng.choice([0.8, 0.6])))
    box = (x - half, y - half, x + half, y + half)
    return data.recoloured(image.resize((large, large), data.Image.Resampling.LANCZOS, box), rng)


def grain(side: int, rng: np.random.Generator) -> data.Image.Image:
    """Drawn clouds, stone, skin: here strong and there faint."""
    field = data.Image.fromarray(rng.normal(size=(5, 5)).astype(np.float32))
    strength = np.exp(0.5 * np.asarray(field.resize((side, side), data.Image.Resampling.BICUBIC)))
    pixels = 128 + 20 * data.fractal(side, rng) * strength
    return data.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


def real_patches(rng: np.random.Generator, count: int, side: int = INNER * data.SCALE) -> Tensor:
    """Sharp patches, uint8, neither empty nor mere noise: five in seven of photographs.

    Each photograph gives the same number: the grass must not outvote the rest. Left out are stars,
    because points of light everywhere look like noise, and bricks and gravel, whose joints become
    cracks in faces.
    """
    left_out = ("brick", "gravel", "hubble_deep_field")
    names = [name for name in data.PHOTOGRAPHS if name not in left_out]
    patches = []
    for name in [*names, "", ""]:
        found = 0
        while found < count // (len(names) + 2):
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


def smooth_patch(rng: np.random.Generator) -> Tensor:
    """Sky and skin: a ramp with the faint grain of a photograph."""
    ramp = data.to_tensor(data.gradient(SIDE * 4, rng)).float() / 255
    start = int(rng.integers(0, SIDE * 3))
    ramp = ramp[:, start : start + SIDE, start : start + SIDE]
    noise = torch.from_numpy(rng.normal(size=(3, SIDE, SIDE)).astype(np.float32))
    coarse = F.avg_pool2d(noise[None], 3, 1, 1)[0] * 3
    mixed = noise[:1] * rng.uniform(0, 1) + coarse[1:2] * rng.uniform(0, 1.5) + 0.3 * noise
    noisy = ramp + mixed * rng.uniform(0.3, 2) / 255
    return ((noisy * 255).round() / 255).clamp(0, 1)


def degraded(patch: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A patch and what may be left of it: doubled pixels, JPEG squares at any offset.

    Shown as they are, squares would be taken for structure, and be given seams and dots.
    """
    if rng.random() < 0.15:
        half = F.avg_pool2d(patch[None], 2)
        smooth = F.interpolate(half, scale_factor=2, mode="bicubic")[0].clamp(0, 1)
        y, x = rng.integers(0, 2, 2)
        doubled = F.interpolate(half, scale_factor=2)
        shown = F.pad(doubled, (x, 0, y, 0), mode="replicate")[0, :, :SIDE, :SIDE]
        return F.pad(smooth[None], (x, 0, y, 0), mode="replicate")[0, :, :SIDE, :SIDE], shown
    if rng.random() < 0.5:
        y, x = rng.integers(0, 8, 2)
        padded = F.pad(patch[None], (x, 0, y, 0), mode="replicate")[0]
        pixels = (padded * 255).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        quality, chroma = int(rng.integers(50, 96)), int(rng.choice([0, 2]))
        data.Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=chroma)
        return patch, data.to_tensor(data.Image.open(file))[:, y:, x:].float() / 255
    return patch, patch


class OwnResults:
    """A pool of crops of the model's results, each ready to be zoomed again."""

    def __init__(self) -> None:
        self.crops: list[tuple[Tensor, int]] = []

    def take(self, rng: np.random.Generator, count: int) -> list[tuple[Tensor, int]]:
        if len(self.crops) < count:
            return []
        return [self.crops[i] for i in rng.choice(len(self.crops), count, replace=False)]

    def put(self, rng: np.random.Generator, sr: Tensor, depths: list[int]) -> None:
        for image, depth in zip(sr.detach().clamp(0, 1).cpu(), depths, strict=True):
            if depth >= DEPTH:
                continue
            y, x = rng.integers(0, sr.shape[-1] - SIDE + 1, 2)
            entry = (image[:, y : y + SIDE, x : x + SIDE].clone(), depth + 1)
            if len(self.crops) < POOL:
                self.crops.append(entry)
            else:
                self.crops[rng.integers(POOL)] = entry


def inputs(
    pairs: list[data.Pair], weights: np.ndarray, pool: OwnResults, rng: np.random.Generator
) -> tuple[Tensor, Tensor, list[int]]:
    """A batch of LR patches, clean and as shown, and how many zooms each has behind it."""
    own = pool.take(rng, OWN)
    paired = PAIRED + OWN - len(own)
    reduced, _ = data.sample(pairs, rng, paired, SIDE, weights)
    _, large = data.sample(pairs, rng, NATIVE, SIDE, weights)
    offset = int(rng.integers(0, 3 * SIDE + 1))
    native = large[..., offset : offset + SIDE, offset : offset + SIDE]
    smooth = torch.stack([smooth_patch(rng) for _ in range(SMOOTH)])
    pictures = [degraded(patch, rng) for patch in torch.cat([reduced, native, smooth])]
    clean, shown = zip(*pictures, *((crop, crop) for crop, _ in own), strict=True)
    depths = [0] * len(pictures) + [depth for _, depth in own]
    return torch.stack(clean), torch.stack(shown), depths


def cut(image: Tensor, corner: np.ndarray, side: int) -> Tensor:
    y, x = corner
    return image[..., y : y + side, x : x + side]


def judged(judge: Discriminator, image: Tensor, corner: np.ndarray) -> Tensor:
    """At any offset: strides that always meet the same pixels would teach a lattice."""
    with torch.autocast(image.device.type, torch.bfloat16):
        return judge(high_pass(cut(image, corner, JUDGED))).float()


@torch.no_grad()
def between(first: CompactNet, second: CompactNet, share: float) -> CompactNet:
    mixed = copy.deepcopy(first)
    for weight, other in zip(mixed.parameters(), second.parameters(), strict=True):
        weight.lerp_(other, share)
    return mixed


def train(
    start_from: Path, target: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0
) -> None:
    """Train on top of the faithful model, or go on from `checkpoint`."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs, weights = training_pairs(seed, variants=4, drawn=200)
    weights *= [min(pair.lr.shape[1:]) >= SIDE for pair in pairs]
    weights /= weights.sum()
    real = real_patches(np.random.default_rng(seed), REAL_PATCHES)
    net = CompactNet()
    net.load_state_dict(load_file(start_from))
    net = net.to(device, memory_format=torch.channels_last)
    faithful, average = copy.deepcopy(net), copy.deepcopy(net)
    judge = Discriminator().to(device, memory_format=torch.channels_last)
    updates = optimisers(net, MUON_LR, ADAM_LR)
    judge_update = torch.optim.Adam(judge.parameters(), JUDGE_LR, betas=(0.5, 0.99))
    full_rates = [update.param_groups[0]["lr"] for update in updates]
    pool = OwnResults()
    kept = {"net": net, "average": average, "judge": judge, "judge_update": judge_update}
    kept |= {f"update {i}": update for i, update in enumerate(updates)}
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        for name, part in kept.items():
            part.load_state_dict(state[name])
        first, spent, pool.crops = state["step"], state["seconds"], state["pool"]

    log: list[list[float]] = []
    start = time.monotonic() - spent
    for step in range(first, steps):
        for update, full in zip(updates, full_rates, strict=True):
            update.param_groups[0]["lr"] = full * rate_at(step, steps, DECAY)
        rng = np.random.default_rng([seed, step])
        clean, shown, depths = inputs(pairs, weights, pool, rng)
        shown = shown.to(device, memory_format=torch.channels_last)
        corner = rng.choice([0, MARGIN, 2 * MARGIN], 2, p=AT_BORDER)
        # float32, as in every use of the model: what bfloat16 rounds away is what it must see
        sr = cut(net(shown), corner * data.SCALE, INNER * data.SCALE)
        clean, shown = cut(clean.to(device), corner, INNER), cut(shown, corner, INNER)
        pool.put(rng, sr, depths)

        for _ in range(JUDGE_STEPS):
            photograph = real[torch.from_numpy(rng.integers(0, len(real), len(sr)))]
            photograph = data.turned(photograph, int(rng.integers(8)))[:, rng.permutation(3)]
            corner = rng.integers(0, INNER * data.SCALE - JUDGED + 1, 2)
            on_real = judged(judge, photograph.to(device).float() / 255, corner)
            on_fake = judged(judge, sr.detach(), corner)
            judge_loss = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
            judge_update.zero_grad()
            judge_loss.backward()
            judge_update.step()

        judge.requires_grad_(False)
        lattice, any_period = repetition(sr)
        parts = [
            -judged(judge, sr, corner).mean(),
            agreement_loss(sr, clean, shown),
            texture_loss(sr),
            grid_loss(sr),
            lattice,
            any_period * (step >= ANY_PERIOD_FROM),
            chroma_loss(sr, clean),
        ]
        judge.requires_grad_(True)
        net.zero_grad()
        sum(weight * part for weight, part in zip(WEIGHTS, parts, strict=True)).backward()
        for update in updates:
            update.step()
        follow(average, net, step)
        log.append([judge_loss.item(), *(part.item() for part in parts)])
        if (step + 1) % SNAPSHOT == 0 or step + 1 == steps:
            seconds = time.monotonic() - start
            state = {name: part.state_dict() for name, part in kept.items()}
            torch.save(
                state | {"step": step + 1, "seconds": seconds, "pool": pool.crops}, checkpoint
            )
            save(between(faithful, average, STRENGTH), target)
            means = " ".join(f"{mean:.3f}" for mean in np.mean(log, 0))
            print(f"step {step + 1} of {steps}, {seconds:.0f} s, losses {means}", flush=True)
            log.clear()
    checkpoint.unlink()  # finished: the next call starts anew
