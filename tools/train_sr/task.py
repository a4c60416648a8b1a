"""What the loop of all trainings of super-resolution asks of one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .network import OneStepNetwork
from .weights import export

Batch = dict[str, Any]
Backward = Callable[[Tensor], None]


class Task:
    """What is trained, and what is done with a batch."""

    network: OneStepNetwork
    adapters: tuple[str, ...]
    """The adapters that are trained, each by an optimizer of its own."""
    averaged: tuple[str, ...] = ()
    """Those of the result, which may be averaged."""

    def compute(self, batch: Batch, rng: torch.Generator, backward: Backward) -> dict[str, Tensor]:
        """Compute the losses of a batch and their gradients."""
        raise NotImplementedError

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the text embeddings of a batch, (text, pooled)."""
        raise NotImplementedError

    is_over = False
    """Whether the training ends before its last step."""

    def finish_step(self, step: int) -> dict[str, float]:
        """Do what follows a step; return values for its entry in the log."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside LoRAs and optimizers."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Set what `get_state` returned."""

    def export(self, folder: Path, step: int) -> None:
        """Write the result."""
        export(self.network, folder)
