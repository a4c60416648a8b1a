"""Keep the state of a training, so that it continues exactly where it was stopped."""

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch

KEPT_CHECKPOINTS = 2

DAMAGE = RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError
"""The errors that torch.load raises for damaged files."""


class Checkpoint(NamedTuple):
    """The state after a step. It holds no random state, because all noise is drawn by seed and step."""

    step: int
    run: dict[str, Any]
    """The settings that must be the same when the run continues."""
    loras: dict[str, torch.Tensor]
    optimizers: dict[str, Any]
    extra: dict[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint, and delete all but the newest two. A full disk leaves the earlier ones whole."""
    path = folder / f"step-{checkpoint.step:07}.checkpoint"
    try:
        write_tensors(path, checkpoint._asdict())
    except OSError as error:
        raise ValueError(
            f"the checkpoint of step {checkpoint.step} cannot be written to {folder}: {error.strerror}. The "
            "earlier ones are kept: make room and run it again to continue"
        ) from error
    for old in list_checkpoints(folder)[KEPT_CHECKPOINTS:]:
        old.unlink()


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints from the newest to the oldest."""
    return sorted(folder.glob("step-*.checkpoint"), reverse=True)


def read_checkpoint(folder: Path, run: dict[str, Any]) -> Checkpoint | None:
    """Return the newest checkpoint that is not damaged, or None. A checkpoint of another run is an error."""
    for path in list_checkpoints(folder):
        try:
            checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
        except DAMAGE:
            print(f"{path.name} is damaged and left out")
            continue
        for name, value in run.items():
            if checkpoint.run.get(name) != value:
                raise ValueError(
                    f"out: {folder} holds a run with {name} {checkpoint.run.get(name)}, but now it is "
                    f"{value}. Choose another out, or set it back to continue that run"
                )
        return checkpoint
    return None


def write_tensors(path: Path, content: Any) -> None:
    """Write a file of torch. torch.save itself would report a full disk as a RuntimeError without a cause."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_whole(path, buffer.getvalue())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is either complete or absent, even if the computer stops."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        with part.open("r+b") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class LossLog:
    """A log of the losses, with a line of JSON for each step."""

    def __init__(self, path: Path, step: int) -> None:
        """Continue the log after a step, and remove the lines that an interrupted run wrote after it."""
        self.path = path
        lines = path.read_text("utf-8").splitlines(keepends=True)[:step] if path.is_file() else []
        write_whole(path, "".join(lines).encode())

    def write(self, entry: dict[str, float]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> list[dict[str, float]]:
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]
