"""Run the training loop of all models: learning rates, moving average, log and checkpoint."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .net import CompactNet, make_optimizers

WARM_UP_STEPS = 100
EMA_DECAY = 0.998
SNAPSHOT_STEPS = 50
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def compute_rate_factor(step: int, steps: int, decay_share: float) -> float:
    """Compute the factor of the learning rate in a step.

    It rises to 1 during the warm-up, stays there, and falls linearly to 0 over the last part of the
    steps, whose share is ``decay_share``.
    """
    return min(1, (step + 1) / WARM_UP_STEPS, (1 - step / steps) / decay_share)


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, step: int) -> None:
    """Update the exponential moving average of the weights; its window is shorter in the first steps."""
    decay = min(EMA_DECAY, (step + 1) / (step + 10))
    for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def save_weights(net: nn.Module, path: Path) -> None:
    """Save the weights as contiguous tensors; during the training they are channels-last."""
    weights = {name: weight.contiguous().cpu() for name, weight in net.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})


class Training:
    """A network and its optimizers. `parts` holds everything that a checkpoint must contain."""

    def __init__(
        self,
        start_from: Path | None,
        muon_lr: float,
        adam_lr: float,
        decay_share: float,
        has_limited_reach: bool = False,
    ) -> None:
        self.net = CompactNet()
        if start_from:
            weights = load_file(start_from)
            self.net.load_state_dict(weights)
            self.net.pass_colors_through()
            if not all(weights[name].equal(kept) for name, kept in self.net.state_dict().items()):
                raise ValueError(
                    f"{start_from} was not trained by this program: its first channels do not "
                    "pass the image through. Train a new faithful model and start from that"
                )
        if has_limited_reach or self.net.was_saved_with_limited_reach():
            self.net.limit_reach()
        self.net = self.net.to(DEVICE, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net)
        self.optimizers = make_optimizers(self.net, muon_lr, adam_lr)
        self.rates = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        self.decay_share = decay_share
        self.seconds = 0.0
        self.parts: dict[str, Any] = {"net": self.net, "average": self.average}
        # Checkpoints have these names.
        self.parts |= {f"update {i}": optimizer for i, optimizer in enumerate(self.optimizers)}
        self.log: dict[str, list[float]] = {}

    def resume(self, checkpoint: Path) -> int:
        """Continue from ``checkpoint`` if it exists; return the number of the next step."""
        if not checkpoint.exists():
            return 0
        state = torch.load(checkpoint, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.seconds = state["seconds"]
        return state["step"]

    def run_steps(self, first: int, count: int, out: Path, checkpoint: Path) -> Iterator[int]:
        """Yield the steps from ``first`` to ``count`` - 1; the caller calls `learn` once in each.

        The averaged weights are written to ``out``.
        """
        start = time.monotonic() - self.seconds
        for step in range(first, count):
            factor = compute_rate_factor(step, count, self.decay_share)
            for optimizer, full in zip(self.optimizers, self.rates, strict=True):
                optimizer.param_groups[0]["lr"] = full * factor
            yield step
            update_average(self.average, self.net, step)
            if (step + 1) % SNAPSHOT_STEPS == 0 or step + 1 == count:
                seconds = time.monotonic() - start
                state = {name: part.state_dict() for name, part in self.parts.items()}
                torch.save(state | {"step": step + 1, "seconds": seconds}, checkpoint)
                save_weights(self.average, out)
                means = [f"{name} {np.mean(values):.5f}" for name, values in self.log.items()]
                print(f"step {step + 1} of {count}, {seconds:.0f} s,", *means, flush=True)
                self.log.clear()
        checkpoint.unlink()  # finished: the next call starts from the beginning

    def learn(self, loss: Tensor, **terms: Tensor) -> None:
        """Train the network one step with ``loss``; its ``terms`` are logged."""
        self.net.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.net.pass_colors_through()
        if self.net.has_limited_reach:
            self.net.limit_reach()
        for name, value in (terms or {"loss": loss}).items():
            self.log.setdefault(name, []).append(value.item())
