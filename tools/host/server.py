"""Start the real ComfyUI server: ``serve`` for tests and the demo, ``make serve`` for people.

python -m tools.host.server [--port 8188] [options of ComfyUI's main.py]
"""

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import HostError, host_path
from .client import ServerClient
from .environment import python_path

LOG_TAIL_LINES = 25  # lines shown when the server dies


def make_command(
    version: str | None = None, *, port: int, frontend: Path | None = None
) -> list[str]:
    """Return ComfyUI's command line: opens no browser, loads no API nodes, --cpu if there is no GPU.

    Raises:
        HostError: If that ComfyUI or .venv is not installed yet.
    """
    main = host_path(version) / "main.py"
    for needed in (main, python_path()):
        if not needed.exists():
            wanted = f" --version {version}" if version else ""
            raise HostError(f"{needed} is missing: run python3 -m tools.host{wanted}")
    line = [str(python_path()), str(main), "--port", str(port)]
    line += ["--disable-auto-launch", "--disable-api-nodes"]
    if not _has_cuda():
        line.append("--cpu")
    if frontend:
        line += ["--front-end-root", str(frontend)]
    return line


@contextlib.contextmanager
def serve(
    version: str | None = None,
    *,
    frontend: Path | None = None,
    arguments: Sequence[str] = (),
    folder: Path | None = None,
    timeout: float = 300,
) -> Iterator[str]:
    """Run a ComfyUI server on a free port during the block and yield its URL.

    The server ends with the block, on Ctrl-C, and when this process ends, even if it is killed.

    Args:
        version: One of ``tools.host.COMFYUI_RELEASES``; the default is COMFYUI_PATH or the pinned version.
        frontend: A frontend to serve instead of the installed one, such as ``frontend_path()``.
        arguments: More options of ComfyUI's main.py.
        folder: Keeps input, output, temp, user and server.log; by default these go to a temporary
            folder that is removed.
        timeout: Seconds that the server may take to start.

    Raises:
        HostError: If the server does not start, or has ended when the block fails. It quotes the
            end of the log.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="coz-", ignore_cleanup_errors=True)
            home = Path(stack.enter_context(temporary))
        else:
            home = folder.resolve()
        port = _find_free_port()
        line = make_command(version, port=port, frontend=frontend)
        for name in ("input", "output", "user"):
            (home / name).mkdir(parents=True, exist_ok=True)
            line += [f"--{name}-directory", str(home / name)]
        line += ["--temp-directory", str(home)]  # ComfyUI adds the folder temp
        line += ["--database-url", f"sqlite:///{(home / 'comfyui.db').as_posix()}", *arguments]
        log = stack.enter_context((home / "server.log").open("w", encoding="utf-8"))
        removed = "" if folder else str(home)
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("watch.py")), removed, *line],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=Path(line[1]).parent,
            env=_make_environment(),
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the server
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process, log.name, timeout)
            yield url
        except Exception as error:
            if isinstance(error, HostError) or not _has_ended(process):
                raise
            raise HostError(f"ComfyUI stopped. {_read_log_tail(log.name)}") from error
        finally:
            process.stdin.close()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: str, timeout: float) -> None:
    server, deadline = ServerClient(url), time.monotonic() + timeout
    while True:
        try:
            server.get_stats(timeout)
        except OSError as error:
            if process.poll() is not None:
                raise HostError(f"ComfyUI did not start. {_read_log_tail(log)}") from error
            if time.monotonic() > deadline:
                problem = f"ComfyUI gave no answer for {timeout:.0f} s."
                raise HostError(f"{problem} {_read_log_tail(log)}") from error
            time.sleep(0.1)
        else:
            return


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(0.2)  # the request may fail a moment before the process ends
    except subprocess.TimeoutExpired:
        return False
    return True


def _read_log_tail(log: str) -> str:
    text = Path(log).read_text("utf-8", "replace")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    return "\n".join(["Its log ends:", *lines[-LOG_TAIL_LINES:]])


def _has_cuda() -> bool:
    if not shutil.which("nvidia-smi"):
        return False  # saves the seconds that importing torch takes
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([python_path(), "-c", code], env=_make_environment()).returncode == 0


def _make_environment() -> dict[str, str]:
    """Copy the environment without PYTHONPATH, in which the pack's ``nodes`` would hide ComfyUI's."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}


def _find_free_port(wanted: int = 0) -> int:
    """Return ``wanted`` if it is free (OSError if not), or with 0 any free port."""
    with socket.socket() as probe:
        if os.name != "nt":  # on Windows this option would hide that the port is taken
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", wanted))
        return probe.getsockname()[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Start ComfyUI with the pack in it.")
    parser.add_argument("--port", type=int, default=8188)
    options, arguments = parser.parse_known_args()
    try:
        line = [*make_command(port=_find_free_port(options.port)), *arguments]
    except HostError as error:
        sys.exit(f"error: {error}")
    except OSError:
        sys.exit(f"error: port {options.port} is taken: python -m tools.host.server --port 8189")
    print(f"ComfyUI starts on http://127.0.0.1:{options.port} (Ctrl-C ends it)", flush=True)
    os.chdir(Path(line[1]).parent)
    if os.name == "nt":
        sys.exit(subprocess.call(line, env=_make_environment()))
    os.execve(line[0], line, _make_environment())


if __name__ == "__main__":
    main()
