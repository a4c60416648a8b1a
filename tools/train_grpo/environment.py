"""Create .venv-train, the Python environment for training: python3 -m tools.train_grpo.environment

It holds the packages of the `train` extra in the versions of locks/train.txt, and none of ComfyUI's.
NEWEST_PACKAGES=1 installs the newest instead. It needs Python 3.11, because TRL does. The command may
be killed at any point and run again. It keeps other packages in .venv-train, such as vllm.
"""

import sys
from pathlib import Path

from tools.host import environment
from tools.host.environment import HostError

TRAIN_VENV = environment.ROOT / ".venv-train"
TORCH = environment.TORCH[:2]
LOCK = "locks/train.txt"
OLDEST_PYTHON = (3, 11)


def python_path() -> Path:
    return environment.venv_python_path(TRAIN_VENV)


def install() -> None:
    """Create .venv-train with the `train` extra, unless its stamp says that it is complete."""
    if sys.version_info < OLDEST_PYTHON:
        version = ".".join(map(str, sys.version_info[:3]))
        raise HostError(
            f"TRL needs Python 3.11 or newer, but this is {version}: make train-env PYTHON=python3.11"
        )
    environment.HOST_FOLDER.mkdir(exist_ok=True)
    environment.make_venv(TRAIN_VENV, OLDEST_PYTHON)
    packages = [*TORCH, "-r", environment.ROOT / "pyproject.toml", "--extra", "train"]
    environment.install_packages(TRAIN_VENV, environment.ROOT / LOCK, packages)


def main() -> None:
    with environment.exit_in_one_line():
        install()
    print(f"The packages for training are ready in {TRAIN_VENV}")


if __name__ == "__main__":
    main()
