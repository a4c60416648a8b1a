"""The loop in which both models are trained: rates, moving average, log and checkpoint."""

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .net import CompactNet, optimisers

WARM_UP_STEPS = 100
EMA_DECAY = 0.998
SNAPSHOT_STEPS = 50
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rate_at(step: int, steps: int, decay: float) -> float:
    """Warm-up, plateau, and over the last share ``decay`` of the steps a straight line to 0."""
    return min(1, (step + 1) / WARM_UP_STEPS, (1 - step / steps) / decay)


@torch.no_grad()
def update_average(average: nn.Module, net: nn.Module, step: int) -> None:
    """Exponential moving average of the weights, shorter in the first steps."""
    decay = min(EMA_DECAY, (step + 1) / (step + 10))
    for slow, fast in zip(average.parameters(), net.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)


def save(net: nn.Module, path: Path) -> None:
    """As plain contiguous tensors: training keeps them channels-last."""
    weights = {name: weight.contiguous().cpu() for name, weight in net.state_dict().items()}
    save_file(weights, path, metadata={"format": "pt"})


class Training:
    """A network, its optimisers, and all else that a checkpoint must hold, in `parts`."""

    def __init__(
        self,
        start_from: Path | None,
        muon_lr: float,
        adam_lr: float,
        decay: float,
        is_narrow: bool = False,
    ) -> None:
        self.net = CompactNet()
        if start_from:
            weights = load_file(start_from)
            self.net.load_state_dict(weights)
            self.net.carry_colours()
            if not all(weights[name].equal(kept) for name, kept in self.net.state_dict().items()):
                raise ValueError(
                    f"{start_from} was not trained by this program: its first channels do not "
                    "carry the picture. Train a new faithful model and start from that"
                )
        if is_narrow or self.net.looks_narrow():
            self.net.narrow()
        self.net = self.net.to(DEVICE, memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net)
        self.updates = optimisers(self.net, muon_lr, adam_lr)
        self.rates = [update.param_groups[0]["lr"] for update in self.updates]
        self.decay = decay
        self.seconds = 0.0
        self.parts: dict[str, Any] = {"net": self.net, "average": self.average}
        self.parts |= {f"update {i}": update for i, update in enumerate(self.updates)}
        self.log: dict[str, list[float]] = {}

    def resume(self, checkpoint: Path) -> int:
        """Go on from ``checkpoint`` where there is one; return the number of the next step."""
        if not checkpoint.exists():
            return 0
        state = torch.load(checkpoint, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.seconds = state["seconds"]
        return state["step"]

    def steps(self, first: int, count: int, target: Path, checkpoint: Path) -> Iterator[int]:
        """Yield the steps from ``first`` to ``count`` - 1; the caller calls `learn` once in each.

        ``target`` gets the averaged weights.
        """
        start = time.monotonic() - self.seconds
        for step in range(first, count):
            for update, full in zip(self.updates, self.rates, strict=True):
                update.param_groups[0]["lr"] = full * rate_at(step, count, self.decay)
            yield step
            update_average(self.average, self.net, step)
            if (step + 1) % SNAPSHOT_STEPS == 0 or step + 1 == count:
                seconds = time.monotonic() - start
                state = {name: part.state_dict() for name, part in self.parts.items()}
                torch.save(state | {"step": step + 1, "seconds": seconds}, checkpoint)
                save(self.average, target)
                means = [f"{name} {np.mean(values):.5f}" for name, values in self.log.items()]
                print(f"step {step + 1} of {count}, {seconds:.0f} s,", *means, flush=True)
                self.log.clear()
        checkpoint.unlink()  # finished: the next call starts anew

    def learn(self, loss: Tensor, **parts: Tensor) -> None:
        """Improve the network by ``loss``; ``parts`` of it are for the log."""
        self.net.zero_grad()
        loss.backward()
        for update in self.updates:
            update.step()
        self.net.carry_colours()
        if self.net.is_narrow:
            self.net.narrow()
        for name, value in (parts or {"loss": loss}).items():
            self.log.setdefault(name, []).append(value.item())
