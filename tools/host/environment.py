"""Create Python environments: .venv for ComfyUI, the tests and the tools, and .venv-train.

This module imports only the standard library.
"""

import contextlib
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if sys.version_info < (3, 10):  # noqa: UP036 - an older Python shows this line instead of a traceback
    sys.exit(f"error: Python 3.10 or newer is needed, this is {sys.version.split()[0]}")

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
HOST_FOLDER = ROOT / ".host"

UV = "uv==0.13.8"
# ComfyUI does not pin torch. These three versions match (torchaudio's newest is 2.11).
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
EXTRAS = ("test", "eval", "scale")
# The path below ROOT of the tested versions of all other packages. `make locks` updates it.
LOCK = "locks/host.txt"
# States of an environment's stamp file before it holds the digest of the installed packages.
UNFINISHED = "unfinished"
EMPTY = "empty"
NO_NETWORK_MESSAGES = (
    "Connection refused|NewConnectionError|Max retries exceeded|tcp connect error|dns error|"
    "error sending request|name resolution|Name or service not known|timed out|"
    "from versions: none|Network is unreachable|network was disabled"
)


class HostError(Exception):
    """An error whose message says what is wrong and how to fix it."""


class ContradictionError(HostError):
    """The requirements contradict each other: no version of some package satisfies them all."""


def python_path() -> Path:
    """Return the Python that has the packages of ComfyUI and of the tests.

    It is that of .venv, or the running one if ``tools.release.matrix`` created it in .host/.
    """
    own = Path(sys.prefix)
    return venv_python_path(own if HOST_FOLDER in own.parents else VENV)


def venv_python_path(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make_venv(venv: Path, oldest: tuple[int, int] = (3, 10)) -> None:
    """Create ``venv``, unless it exists, is complete, was not moved, and its Python runs."""
    if venv.exists():
        version = _read_venv_version(venv)
        place, state = _read_stamp(venv)
        if version and state != UNFINISHED and place in ("", f"{venv} {version}"):
            if tuple(map(int, version.split("."))) < oldest:
                needed = ".".join(map(str, oldest))
                raise HostError(
                    f"{venv.name} holds Python {version}, but {needed} is needed: delete {venv.name}"
                )
            return
        if Path(sys.prefix).resolve() == venv:
            raise HostError(
                f"{venv.name} must be created again: run this with python3, not with the Python in it"
            )
        with scratch_folder() as scratch:
            venv.rename(scratch / "venv")
    print(f"Python environment: making {venv.name}", flush=True)
    venv.mkdir()
    _write_stamp(venv, UNFINISHED)
    run([sys.executable, "-m", "venv", "--without-pip", venv])
    # This is a separate step, because venv would hide its errors.
    run([venv_python_path(venv), "-m", "ensurepip", "--default-pip"])
    _write_stamp(venv, EMPTY)


def install_packages(venv: Path, lock: Path, packages: list[object]) -> None:
    """Install the packages in the versions of ``lock``, unless the stamp says that they are installed.

    Args:
        venv: The environment.
        lock: The lock file; see ``choose_versions``.
        packages: Arguments of uv. The stamp depends on the content of the files among them.
    """
    texts = [part.read_text("utf-8") if isinstance(part, Path) else part for part in packages]
    wanted = (UV, *texts, lock.read_text("utf-8"), wants_newest())
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()
    before = _read_stamp(venv)[1]
    if before == digest and not wants_newest():
        return
    print("Packages: installing (several minutes on the first run)", flush=True)
    python = venv_python_path(venv)
    uv = [python, "-m", "uv", "pip", "install", "--python", python]
    _write_stamp(venv, UNFINISHED)
    try:
        run([python, "-m", "pip", "install", "--quiet", UV])
        versions = choose_versions(uv, packages, lock)
    except HostError:
        _write_stamp(venv, before)  # for example offline: nothing was changed yet
        raise
    run([*uv, *packages, *versions])
    _write_stamp(venv, digest)


def list_host_packages(requirements: Path) -> list[object]:
    """Return uv's arguments for the packages that ComfyUI, the tests and the evaluation need."""
    extras = (part for extra in EXTRAS for part in ("--extra", extra))
    return [*TORCH, "-r", requirements, "-r", ROOT / "pyproject.toml", *extras]


def wants_newest() -> bool:
    """Return whether NEWEST_PACKAGES asks for the newest packages instead of the locked ones."""
    return bool(os.environ.get("NEWEST_PACKAGES"))


def choose_versions(uv: list[object], packages: list[object], lock: Path) -> list[object]:
    """Return options with which ``uv`` installs the locked versions or, if they do not fit, the newest.

    They do not fit if the ComfyUI of COMFYUI_PATH pins other versions. This installs nothing.
    """
    if not wants_newest():
        locked: list[object] = ["--constraints", lock]
        try:
            run([*uv, "--dry-run", *packages, *locked])
        except ContradictionError:
            pass
        else:
            return locked
    newest: list[object] = ["--upgrade"]
    run([*uv, "--dry-run", *packages, *newest])
    if not wants_newest():
        print(f"locks/{lock.name} does not fit these packages: installing the newest", flush=True)
    return newest


def explain_failure(output: str) -> str:
    """Explain in one line why pip, uv or venv failed after it printed ``output``."""
    if re.search("No space left|os error 28|os error 112|not enough space", output):
        return "the disk is full: .venv and the package cache need about 7 GB"
    if re.search("DO NOT MATCH THE HASHES|hash mismatch", output, re.IGNORECASE):
        package = re.search(r"^\s+(\S+)( from .*)?:\n\s+Expected", output, re.MULTILINE)
        name = package[1] if package else "a package"
        sums = re.search(r"Expected sha256 (\w+)\s+Got\s+(\w+)", output)
        note = f" (sha256 {sums[2]}, pinned {sums[1]})" if sums else ""
        return (
            f"wrong checksum: {name} is not the file that this script pins{note};"
            " none of its code was run"
        )
    if re.search("ensurepip is not available|No module named '?(venv|ensurepip)", output):
        return (
            "this Python has no venv module: install it (Debian, Ubuntu: apt install python3-venv)"
            " or name another Python (make host PYTHON=python3.12)"
        )
    if re.search("has no wheels with a matching", output):
        return (
            f"torch has no build for Python {sys.version.split()[0]} on this system:"
            " name another Python (make host PYTHON=python3.12)"
        )
    if re.search(NO_NETWORK_MESSAGES, output):
        return "the package index cannot be reached: check the network, the proxy and the index URL"
    lines = output.strip().splitlines() or ["no output"]
    return lines[-1].strip()


@contextlib.contextmanager
def exit_in_one_line() -> Iterator[None]:
    """Exit with a one-line message if the installation in the block fails or is interrupted."""
    try:
        yield
    except HostError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {explain_failure(str(error))}")
    except KeyboardInterrupt:
        sys.exit("stopped: run it again to continue")


def run(command: list[object]) -> None:
    """Run ``command`` silently; if it fails, write its output to .host/log.txt.

    The child inherits the lock of ``host.install``: if the parent is killed, the next installation
    waits until this child has ended too.
    """
    with scratch_folder() as scratch:
        temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
        # ``explain_failure`` shows the last line, so uv must not wrap its messages.
        unbroken = {"COLUMNS": "10000"}
        result = subprocess.run(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            close_fds=False,
            env={**os.environ, **temporary, **unbroken},
        )
    if result.returncode:
        log = HOST_FOLDER / "log.txt"
        log.write_text(result.stdout, encoding="utf-8")
        error = ContradictionError if "No solution found" in result.stdout else HostError
        raise error(
            f"{explain_failure(result.stdout)} (all output: {log.relative_to(HOST_FOLDER.parent)})"
        )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a temporary folder on the disk of .venv and .host, so that moving files out is atomic."""
    with tempfile.TemporaryDirectory(prefix="tmp-", dir=HOST_FOLDER) as folder:
        yield Path(folder)


def _read_venv_version(venv: Path) -> str:
    """Return the version of the Python in ``venv``, such as 3.12; empty if it does not run."""
    try:
        return subprocess.check_output(
            [venv_python_path(venv), "-c", "import sys; print('{}.{}'.format(*sys.version_info))"],
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _read_stamp(venv: Path) -> tuple[str, str]:
    """Return the path and Python that ``venv`` was made with, and its state; empty without a stamp."""
    try:
        place, state = (venv / "host-stamp").read_text("utf-8").splitlines()
    except FileNotFoundError:
        return "", ""
    return place, state


def _write_stamp(venv: Path, state: str) -> None:
    new = venv / "host-stamp.new"
    new.write_text(f"{venv} {_read_venv_version(venv)}\n{state}\n", "utf-8")
    new.replace(venv / "host-stamp")
