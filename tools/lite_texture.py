"""Training of the texture model: it must invent detail, also from crops of its own results.

A discriminator compares its results with photographs. Two patches in five are crops of its own
earlier results, because in a chain every input but the first is one.
"""

import copy
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from . import lite_data as data
from .lite_faithful import follow, rate_at, save, training_pairs
from .lite_losses import (
    LOG_VARIANCE,
    agreement_loss,
    chroma_loss,
    grid_loss,
    high_pass,
    moments,
    texture_loss,
)
from .lite_net import CompactNet, optimisers

STEPS = 4500
MARGIN = 8
"""LR pixels around a patch that are shown and not judged. Without them the network learns to start
its texture from the zeros that its convolutions pad with, and leaves the middle of a frame empty."""
INNER = 32
SIDE = INNER + 2 * MARGIN
PAIRED, NATIVE, SMOOTH, OWN = 1, 1, 1, 2  # patches of each kind in a batch
DEPTH = 5  # zooms after which a pooled result is dropped
POOL = 192
REAL_PATCHES = 1600
MUON_LR = 6e-4
ADAM_LR = 2e-4
JUDGE_LR = 3e-4
WEIGHTS = (1.0, 1.0, 1.0, 3.0, 20.0)  # adversarial, agreement, texture, grid, chroma
STRENGTH = 0.9
"""Share of the texture weights in the saved file; the rest are the faithful ones (ESRGAN's network
interpolation). 0.8 is calmer still, and leaves skies too empty for the bars."""
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


def real_patches(rng: np.random.Generator, count: int, side: int = INNER * data.SCALE) -> Tensor:
    """Sharp patches of the photographs, uint8, with the contrast of an ordinary photograph.

    Each photograph gives the same number: the grass must not outvote the rest. Stars are left out,
    because points of light everywhere look like noise.
    """
    patches = []
    for name, sharp in data.PHOTOGRAPHS.items():
        share = 0 if name == "hubble_deep_field" else count // (len(data.PHOTOGRAPHS) - 1)
        found = 0
        while found < share:
            image = data.picture(name)
            reduction = sharp * rng.choice([1, 1, 0.8])
            size = [round(v * reduction) for v in image.size]
            if reduction < 1:
                image = image.resize((size[0], size[1]), data.Image.Resampling.LANCZOS)
            pixels = data.to_tensor(data.recoloured(image, rng)).float() / 255
            for _ in range(60):
                y = int(rng.integers(0, pixels.shape[1] - side + 1))
                x = int(rng.integers(0, pixels.shape[2] - side + 1))
                patch = pixels[None, :, y : y + side, x : x + side]
                log_variance, kurtosis = moments(patch)
                wanted = rng.uniform(*LOG_VARIANCE)
                gain = float(((wanted - log_variance) / 2).exp())
                if kurtosis < 5 or gain > 2:
                    continue
                mean = patch.mean((2, 3), keepdim=True)
                patches.append((((patch - mean) * gain + mean).clamp(0, 1) * 255).byte())
                found += 1
    return torch.cat(patches)


def smooth_patch(rng: np.random.Generator) -> Tensor:
    """Sky and skin: a ramp with the faint grain of a photograph."""
    ramp = data.to_tensor(data.gradient(SIDE * 4, rng)).float() / 255
    start = int(rng.integers(0, SIDE * 3))
    ramp = ramp[:, start : start + SIDE, start : start + SIDE]
    grain = torch.from_numpy(rng.normal(size=(3, SIDE, SIDE)).astype(np.float32))
    coarse = F.avg_pool2d(grain[None], 3, 1, 1)[0] * 3
    mixed = grain[:1] * rng.uniform(0, 1) + coarse[1:2] * rng.uniform(0, 1.5) + 0.3 * grain
    noisy = ramp + mixed * rng.uniform(0.3, 2) / 255
    return ((noisy * 255).round() / 255).clamp(0, 1)


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
) -> tuple[Tensor, list[int]]:
    """A batch of LR patches and how many zooms each has behind it."""
    own = pool.take(rng, OWN)
    paired = PAIRED + OWN - len(own)
    reduced, _ = data.sample(pairs, rng, paired, SIDE, weights)
    _, large = data.sample(pairs, rng, NATIVE, SIDE, weights)
    offset = int(rng.integers(0, 3 * SIDE + 1))
    native = large[..., offset : offset + SIDE, offset : offset + SIDE]
    smooth = torch.stack([smooth_patch(rng) for _ in range(SMOOTH)])
    batch = torch.cat([reduced, native, smooth, *(crop[None] for crop, _ in own)])
    depths = [0] * (paired + NATIVE + SMOOTH) + [depth for _, depth in own]
    return batch, depths


def inner(image: Tensor, margin: int) -> Tensor:
    return image[..., margin:-margin, margin:-margin]


def judged(judge: Discriminator, image: Tensor) -> Tensor:
    with torch.autocast(image.device.type, torch.bfloat16):
        return judge(high_pass(image)).float()


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
            update.param_groups[0]["lr"] = full * rate_at(step, steps)
        rng = np.random.default_rng([seed, step])
        lq, depths = inputs(pairs, weights, pool, rng)
        lq = lq.to(device, memory_format=torch.channels_last)
        photograph = real[torch.from_numpy(rng.integers(0, len(real), len(lq)))]
        photograph = data.turned(photograph, int(rng.integers(8)))[:, rng.permutation(3)]
        # float32, as in every use of the model: what bfloat16 rounds away is what it must see
        sr = inner(net(lq), MARGIN * data.SCALE)
        pool.put(rng, sr, depths)

        on_real = judged(judge, photograph.to(device).float() / 255)
        on_fake = judged(judge, sr.detach())
        judge_loss = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
        judge_update.zero_grad()
        judge_loss.backward()
        judge_update.step()

        judge.requires_grad_(False)
        parts = [
            -judged(judge, sr).mean(),
            agreement_loss(sr, inner(lq, MARGIN)),
            texture_loss(sr),
            grid_loss(sr),
            chroma_loss(sr, inner(lq, MARGIN)),
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
