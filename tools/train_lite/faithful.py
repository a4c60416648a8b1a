"""Training of the faithful model: regression on pictures reduced by Pillow's bicubic filter."""

import copy
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from . import data
from .losses import grid_loss
from .net import CompactNet, optimisers

STEPS = 13000
BATCH = 8
SIDE = 32  # of the LR patch
MUON_LR = 3e-3
ADAM_LR = 1e-3
WARM_UP = 100
DECAY = 0.4  # last share of the steps, over which the rates fall to 0
SQUARED = 0.3  # last share of the steps, with squared errors: PSNR counts those
EMA = 0.998
PRECISE_FROM = 7000
"""Up to this step bfloat16 and patches as they are. From it on float32, faint patches and the grid
loss: bfloat16 rounds a bright pixel to whole grey levels, and a network trained so draws a 4-pixel
staircase into smooth shading. In PSNR it hardly counts; in a chain every step enlarges it."""
FAINTEST = 0.05
GRID_SHARE = 0.002
PHOTOGRAPH_SHARE = 0.7
SNAPSHOT = 250


def training_pairs(
    seed: int, variants: int = 8, drawn: int = 700
) -> tuple[list[data.Pair], np.ndarray]:
    """All pictures, and with which chance a patch comes from each."""
    rng = np.random.default_rng(seed)
    photographs = data.photograph_variants(rng, variants)
    synthetic = data.synthetic_images(rng, drawn)
    weights = np.concatenate(
        [
            np.full(len(photographs), PHOTOGRAPH_SHARE / len(photographs)),
            np.full(len(synthetic), (1 - PHOTOGRAPH_SHARE) / len(synthetic)),
        ]
    )
    return [data.make_pair(image) for image in photographs + synthetic], weights


def rate_at(step: int, steps: int, decay: float = DECAY) -> float:
    """Warm-up, plateau, straight line to 0."""
    return min(1, (step + 1) / WARM_UP, (1 - step / steps) / decay)


@torch.no_grad()
def follow(average: nn.Module, net: nn.Module, step: int) -> None:
    """Exponential moving average of the weights, shorter in the first steps."""
    decay = min(EMA, (step + 1) / (step + 10))
    for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def save(net: nn.Module, path: Path) -> None:
    """As plain contiguous tensors: training keeps them channels-last."""
    weights = {name: weight.contiguous().cpu() for name, weight in net.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})


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


def train(target: Path, checkpoint: Path, steps: int = STEPS, seed: int = 0) -> None:
    """Train from nothing, or go on from `checkpoint`; `target` holds the averaged weights."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pairs, weights = training_pairs(seed)
    net = CompactNet().to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(net)
    updates = optimisers(net, MUON_LR, ADAM_LR)
    first, spent = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["average"])
        for update, saved in zip(updates, state["updates"], strict=True):
            update.load_state_dict(saved)
        first, spent = state["step"], state["seconds"]

    losses: list[float] = []
    start = time.monotonic() - spent
    full_rates = [update.param_groups[0]["lr"] for update in updates]
    for step in range(first, steps):
        for update, full in zip(updates, full_rates, strict=True):
            update.param_groups[0]["lr"] = full * rate_at(step, steps)
        # a generator per step, so that a resumed training sees what an unbroken one sees
        rng = np.random.default_rng([seed, step])
        lq, hr = data.sample(pairs, rng, BATCH, SIDE, weights)
        contrast = torch.ones(1)
        if step >= PRECISE_FROM:
            lq, hr, contrast = faint(lq, hr, rng)
        lq = lq.to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16, enabled=step < PRECISE_FROM):
            sr = net(lq)
        loss = loss_at(step / steps, sr.float(), hr.to(device), contrast.to(device))
        if step >= PRECISE_FROM:
            loss = loss * (1 + GRID_SHARE * grid_loss(sr))
        net.zero_grad()
        loss.backward()
        for update in updates:
            update.step()
        follow(average, net, step)
        losses.append(loss.item())
        if (step + 1) % SNAPSHOT == 0 or step + 1 == steps:
            seconds = time.monotonic() - start
            state = {
                "net": net.state_dict(),
                "average": average.state_dict(),
                "updates": [update.state_dict() for update in updates],
                "step": step + 1,
                "seconds": seconds,
            }
            torch.save(state, checkpoint)
            save(average, target)
            print(
                f"step {step + 1} of {steps}, {seconds:.0f} s, loss {np.mean(losses):.5f}",
                flush=True,
            )
            losses.clear()
    checkpoint.unlink()  # finished: the next call starts anew
