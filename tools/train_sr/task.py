"""The interface between the training loop and a kind of training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .network import OneStepNetwork
from .texts import Batch, Texts
from .weights import export

Backward = Callable[[Tensor], None]


class Task:
    """A network with the losses that train its adapters."""

    adapters: tuple[str, ...]
    """The adapters that are trained, each by an optimizer of its own."""
    averaged: tuple[str, ...] = ()
    """The adapters that the result holds as averages over the steps if the config sets ema."""
    is_over = False
    """Whether the training ends before its last step. It must be the same in all processes."""

    def __init__(self, network: OneStepNetwork, lpips: nn.Module, texts: Texts) -> None:
        self.network, self.lpips, self.texts = network, lpips, texts

    def compute_gradients(
        self, batch: Batch, rng: torch.Generator, backward: Backward
    ) -> dict[str, Tensor]:
        """Compute the gradients of a batch with ``backward``; return its losses."""
        raise NotImplementedError

    def finish_step(self, step: int) -> dict[str, float]:
        """Update the task after a step; return values for the step's entry in the log."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside LoRAs and optimizers."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set what `get_state` returned."""

    def export(self, folder: Path, step: int) -> None:
        """Write the result."""
        export(self.network, folder)
