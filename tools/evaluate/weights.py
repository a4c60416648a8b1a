"""Weight files of the learned metrics: where their libraries look, and nothing fetched unasked."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname")
"""Python's own audit events (library/audit_events): what a download begins with."""

_closed = threading.local()


@dataclass(frozen=True)
class WeightFile:
    """A file that a library would download: its address and the folder where it looks first."""

    url: str
    folder: str
    """Below torch.hub.get_dir(), which the variable TORCH_HOME moves."""
    also: str = ""
    """What else is to be fetched, where no path can be checked."""

    @property
    def path(self) -> Path:
        return Path(torch.hub.get_dir()) / self.folder / self.url.rsplit("/", 1)[-1]

    @property
    def fetch(self) -> str:
        return f"fetch {self.url} and put it into {self.path.parent}{self.also}"


class MissingWeightsError(Exception):
    """What a metric lacks, as one line for a person."""


def load(title: str, files: Sequence[WeightFile], build: Callable[[], torch.nn.Module]):
    """What `build` makes of `files`; the network is closed to it.

    Raises:
        MissingWeightsError: If a file is not there, or what is there does not load.
    """
    absent = [file for file in files if not file.path.is_file()]
    if absent:
        raise MissingWeightsError(f"{title}: " + "; ".join(file.fetch for file in absent))
    try:
        with offline():
            return build().eval()
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        names = ", ".join(file.path.name for file in files)
        raise MissingWeightsError(
            f"{title} does not load ({reason}): {names} is damaged or not the file of that name; "
            + "; ".join(file.fetch for file in files)
        ) from error


@contextmanager
def offline() -> Iterator[None]:
    """No connection leaves this thread: a library that would download gets an OSError."""
    _closed.here = True
    try:
        yield
    finally:
        _closed.here = False


def _refuse(event: str, arguments: object) -> None:
    if event in NETWORK and getattr(_closed, "here", False):
        raise OSError("a metric reached for the network; nothing is downloaded")


sys.addaudithook(_refuse)
