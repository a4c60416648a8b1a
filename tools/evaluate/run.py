"""Run the jobs of an evaluation one after another, on one ComfyUI."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.host import HostError
from tools.host.client import ServerClient
from tools.host.server import serve

from .job import Job, Result, make_result, run_job

TRIES = 2
"""Number of tries of a job during which ComfyUI ends."""

FOLDER_OPTIONS = ("--input-directory", "--output-directory")


def run_here(jobs: Iterable[Job]) -> Iterator[Result]:
    """Run the jobs in their order and yield their results.

    Args:
        jobs: The next one is taken only when the one before is done.

    Raises:
        HostError: If ComfyUI does not start.
    """
    with contextlib.closing(RestartingComfyUI()) as host:
        for job in jobs:
            yield host.run(job)


class RestartingComfyUI:
    """A ComfyUI that is started when it is needed, and again if it has ended."""

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
                with contextlib.suppress(OSError):  # the next job notices if ComfyUI has ended
                    empty_folders(self.url)
                return result
        return make_result(job, f"ComfyUI ended while it ran this, {TRIES} times: {reason}")

    def start(self) -> None:
        if not self.url:
            self.url = self.stack.enter_context(serve())

    def end(self, error: HostError) -> str:
        """Stop a ComfyUI that does not answer; return the last line of its log, or the error."""
        problem, self.url = ConnectionError(str(error)), ""
        try:
            self.stack.__exit__(type(problem), problem, None)
        except HostError as stopped:  # quotes the end of the log
            return str(stopped).splitlines()[-1]
        return str(error)

    def close(self) -> None:
        self.stack.close()


def empty_folders(url: str) -> None:
    """Delete the files that a job left in the folders of a ComfyUI on this machine.

    An evaluation makes thousands of frames, of which the store has copies.
    """
    line = ServerClient(url).get_stats()["system"]["argv"]
    folders = [Path(line[line.index(option) + 1]) for option in FOLDER_OPTIONS]
    folders.append(Path(line[line.index("--temp-directory") + 1], "temp"))
    for folder in folders:
        for path in folder.glob("*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
