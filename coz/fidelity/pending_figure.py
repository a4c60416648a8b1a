"""Measure several figures (numbers) of images on the images' device, and read all of them at once."""

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor


class PendingFigure(NamedTuple):
    """A figure whose computation has started: the values for it are still on the device of the images."""

    values: Tensor
    """(n,) float32."""
    finish: Callable[[list[float]], Any]
    """Compute the figure from the values."""


def read_figures(*pending: PendingFigure) -> list[Any]:
    """Compute figures with one read from their device: each read waits until a GPU has finished."""
    if not pending:
        return []
    values = iter(torch.cat([figure.values for figure in pending]).cpu().numpy().tolist())
    return [figure.finish([*islice(values, len(figure.values))]) for figure in pending]
