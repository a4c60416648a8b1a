"""Read several figures of images from their device at once."""

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Sums(NamedTuple):
    """A figure whose computation has started: its sums are still on the device of the images."""

    values: Tensor
    """(n,) float32."""
    finish: Callable[[list[float]], Any]
    """Compute the figure from the values."""


def read_sums(*figures: Sums) -> list[Any]:
    """Compute figures with one read from their device: each read waits until a GPU has finished."""
    if not figures:
        return []
    values = iter(torch.cat([sums.values for sums in figures]).cpu().numpy().tolist())
    return [sums.finish([*islice(values, len(sums.values))]) for sums in figures]
