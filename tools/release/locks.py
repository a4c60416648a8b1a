"""Update the lock files, which pin the version of each package except torch.

python -m tools.release.locks               get the newest versions from the package index, write locks/host.txt
                                            (make host) and locks/train.txt (make train-env), list the changes
python -m tools.release.locks moved FILE    list the installed packages whose version differs from FILE

A lock file fits Linux, Windows and macOS, and every Python that its environment supports. It leaves out
torch and torch's GPU packages, whose builds differ between machines. It has no hashes: they could not
cover torch, and would turn 160 lines into 4700, too many to review.
"""

import argparse
import re
import sys
from collections import defaultdict
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.host import DEFAULT_VERSION, environment, host_path
from tools.host.environment import ROOT, HostError, python_path, run, scratch_folder
from tools.train_grpo import environment as train_environment

NOT_LOCKED = re.compile(r"torch|torchvision|torchaudio|triton|(nvidia|cuda)-.+")
"""Matches torch, the packages that must match it, and its GPU packages."""

HEAD = "# Written by `make locks`. torch and what it brings for a GPU are left out: see tools/release/locks.py.\n"


def compile_lock(python: str, torch: tuple[str, ...], sources: list[object]) -> str:
    """Resolve ``sources`` to the newest versions, for every system and for ``python`` or newer."""
    with scratch_folder() as scratch:
        pins, lock = scratch / "torch.txt", scratch / "lock.txt"
        pins.write_text("\n".join(torch), "utf-8")
        options = ["--universal", "--python-version", python, "--no-python-downloads"]
        options += ["--no-annotate", "--no-header", "--output-file", lock]
        run([python_path(), "-m", "uv", "pip", "compile", *options, pins, *sources])
        lines = lock.read_text("utf-8").splitlines()
    return HEAD + "".join(
        f"{line}\n" for line in lines if not NOT_LOCKED.fullmatch(parse_name(line))
    )


def parse_name(line: str) -> str:
    return line.partition("==")[0]


def read_versions(text: str, own_python_only: bool = False) -> dict[str, str]:
    """Read package -> version from a lock file.

    If the version depends on the Python, it lists all, or with ``own_python_only`` that of this Python.
    """
    found = defaultdict(list)
    for line in text.splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            if not (own_python_only and pin.marker and not pin.marker.evaluate()):
                found[pin.name].append(str(pin.specifier).removeprefix("=="))
    return {name: ", ".join(versions) for name, versions in found.items()}


def list_changes(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """Describe in a line each package whose version differs."""
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    return [f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names]


def read_installed_versions() -> dict[str, str]:
    """Return package -> version in this Python, for the packages that a lock file holds."""
    found = {canonicalize_name(package.name): package.version for package in distributions()}
    left_out = {"pip", parse_name(environment.UV), *filter(NOT_LOCKED.fullmatch, found)}
    return {name: version for name, version in found.items() if name not in left_out}


def renew_locks() -> None:
    project = ROOT / "pyproject.toml"
    requirements = host_path(DEFAULT_VERSION) / "requirements.txt"
    extras = [part for extra in environment.EXTRAS for part in ("--extra", extra)]
    oldest = ".".join(map(str, train_environment.OLDEST_PYTHON))
    for name, compiled in {
        environment.LOCK: ("3.10", environment.TORCH, [requirements, project, *extras]),
        train_environment.LOCK: (oldest, train_environment.TORCH, [project, "--extra", "train"]),
    }.items():
        lock = ROOT / name
        before, text = lock.read_text("utf-8"), compile_lock(*compiled)
        lock.write_text(text, "utf-8")
        print_changes(name, list_changes(read_versions(before), read_versions(text)))


def print_changes(name: str, lines: list[str]) -> None:
    print(f"{name}: {len(lines)} packages changed version")
    for line in lines:
        print(f"- {line}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command")
    commands.add_parser(
        "moved", help="compare the installed versions with a lock file"
    ).add_argument("lock", type=Path)
    options = parser.parse_args()
    if options.command == "moved":
        locked = read_versions(options.lock.read_text("utf-8"), own_python_only=True)
        print_changes(options.lock.as_posix(), list_changes(locked, read_installed_versions()))
        return
    try:
        renew_locks()
    except HostError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
