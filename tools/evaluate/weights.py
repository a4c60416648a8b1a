"""Find the weight files of the learned metrics and load them without any download."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

NETWORK_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
"""Audit events of Python (library/audit_events) with which a download begins."""

_network_blocked = threading.local()


@dataclass(frozen=True)
class WeightFile:
    """A file that a library would download, and the folder in which it looks first."""

    url: str
    folder: str
    """The folder below torch.hub.get_dir(), which the variable TORCH_HOME changes."""
    further_steps: str = ""
    """Text to add to the instruction: how to get a further file, whose path is not known."""

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / self.folder / self.url.rsplit("/", 1)[-1]

    @property
    def instruction(self) -> str:
        """How to download the file, for an error message."""
        return f"download {self.url} to {self.path.parent}{self.further_steps}"


class MissingWeightsError(Exception):
    """An error whose message says in one line which weights are missing and how to get them."""


def load_network(title: str, files: Sequence[WeightFile], build: Callable[[], torch.nn.Module]):
    """Build a network from `files`, without access to the internet.

    Raises:
        MissingWeightsError: If a file is missing or does not load.
    """
    absent = [file for file in files if not file.path.is_file()]
    if absent:
        raise MissingWeightsError(f"{title}: " + "; ".join(file.instruction for file in absent))
    try:
        with block_network():
            return build().eval()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        names = ", ".join(file.path.name for file in files)
        raise MissingWeightsError(
            f"{title} does not load ({reason}): {names} is damaged or another file of that name; "
            + "; ".join(file.instruction for file in files)
        ) from error


@contextmanager
def block_network() -> Iterator[None]:
    """Block connections of this thread: a library that tries to download gets an OSError."""
    _network_blocked.here = True
    try:
        yield
    finally:
        _network_blocked.here = False


def _refuse(event: str, arguments: object) -> None:
    if event in NETWORK_EVENTS and getattr(_network_blocked, "here", False):
        raise OSError("a metric tried to use the internet; nothing is downloaded")


sys.addaudithook(_refuse)
