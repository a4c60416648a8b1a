"""Advise what to do if the memory of the GPU does not suffice."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .config import TrainingConfig


def advise(config: TrainingConfig) -> str:
    """Name the keys that make a training smaller."""
    ways = {
        "checkpointing: true": not config.checkpointing,
        "text_cached: true (after prepare with --text-encoders)": not config.text_cached,
        "precision: bf16": config.precision == "fp32",
        "batch: 1, with more accumulation": config.batch > 1,
    }
    found = [way for way, is_left in ways.items() if is_left]
    return f"set {', or '.join(found)}" if found else "it needs a larger card"


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error of the GPU into a ValueError that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(" GPU ")[0].rstrip(".")
        raise ValueError(f"the memory of the GPU ran out ({reason}): {advice}") from error
