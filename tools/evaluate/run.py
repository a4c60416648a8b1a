"""Runs the jobs of an evaluation in this process, on one ComfyUI."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.host import HostError
from tools.host.client import Files
from tools.host.server import serve

from .job import Job, Result, failed, run_job

TRIES = 2
"""Hosts that a job may end before it is given up."""

FOLDERS = ("--input-directory", "--output-directory")


def run_here(jobs: Iterable[Job]) -> Iterator[Result]:
    """Run the jobs in their order; give each one's result.

    Args:
        jobs: One is asked for when the one before is done.

    Raises:
        HostError: If ComfyUI does not start.
    """
    with contextlib.closing(OwnHost()) as host:
        for job in jobs:
            yield host.run(job)


class OwnHost:
    """A ComfyUI that is started when it is needed, and again after it has ended."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()
        self.url = ""

    def run(self, job: Job) -> Result:
        reason = ""
        for _ in range(TRIES):
            self.start()
            try:
                result = run_job(self.url, job)
            except HostError as error:
                reason = self.end(error)
            else:
                with contextlib.suppress(OSError):  # the next job will find out
                    empty_folders(self.url)
                return result
        return failed(job, f"ComfyUI ended while it ran this, {TRIES} times: {reason}")

    def start(self) -> None:
        if not self.url:
            self.url = self.stack.enter_context(serve())

    def end(self, error: HostError) -> str:
        """End a host that does not answer; what it said last, or the error."""
        problem, self.url = ConnectionError(str(error)), ""
        try:
            self.stack.__exit__(type(problem), problem, None)
        except HostError as told:  # with the end of its log
            return str(told).splitlines()[-1]
        return str(error)

    def close(self) -> None:
        self.stack.close()


def empty_folders(url: str) -> None:
    """Delete what a job has left in the folders of a host on this machine.

    An evaluation saves thousands of frames through it, which are all in the store by then.
    """
    line = Files(url).stats()["system"]["argv"]
    folders = [Path(line[line.index(option) + 1]) for option in FOLDERS]
    folders.append(Path(line[line.index("--temp-directory") + 1], "temp"))
    for folder in folders:
        for path in folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
