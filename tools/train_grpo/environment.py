"""Make .venv-train, the Python environment that prompts are trained in: python3 -m
tools.train_grpo.environment

It holds the packages of the `train` extra in the versions of locks/train.txt, and nothing of ComfyUI's.
NEWEST_PACKAGES=1 takes the newest instead. Python 3.11 is needed, for TRL.
It may be killed at any point and run again. Other packages in it, such as vllm, stay.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from tools.host import environment
from tools.host.environment import HostError, choose_versions, run, wants_newest

TRAIN_VENV = environment.ROOT / ".venv-train"
STAMP = "train-stamp"
TORCH = environment.TORCH[:2]
LOCK = "locks/train.txt"
OLDEST = (3, 11)


def python_path() -> Path:
    return environment.python_in(TRAIN_VENV)


def install() -> None:
    """Bring .venv-train and the `train` extra here, unless the stamp says that they are."""
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:3]))
        raise HostError(
            f"TRL needs Python 3.11 or newer, this is {version}: make train-env PYTHON=python3.11"
        )
    environment.HOST.mkdir(exist_ok=True)
    project, lock = environment.ROOT / "pyproject.toml", environment.ROOT / LOCK
    texts = project.read_text("utf-8"), lock.read_text("utf-8")
    wanted = (environment.UV, TORCH, str(TRAIN_VENV), *texts, wants_newest())
    digest = hashlib.sha256(repr(wanted).encode()).hexdigest()
    stamp = TRAIN_VENV / STAMP
    if runs() and stamp.is_file() and stamp.read_text("utf-8") == digest and not wants_newest():
        return
    if not runs():
        print("Python environment: making .venv-train", flush=True)
        run([sys.executable, "-m", "venv", "--clear", TRAIN_VENV])
    stamp.unlink(missing_ok=True)
    print("Packages: installing (several minutes on the first run)", flush=True)
    python = python_path()
    run([python, "-m", "pip", "install", "--quiet", environment.UV])
    uv = [python, "-m", "uv", "pip", "install", "--python", python]
    packages = [*TORCH, "-r", project, "--extra", "train"]
    run([*uv, *packages, *choose_versions(uv, packages, lock)])
    stamp.write_text(digest, "utf-8")


def runs() -> bool:
    """The Python in .venv-train is whole enough to have pip."""
    command = [python_path(), "-c", "import pip"]
    try:
        return not subprocess.run(command, capture_output=True, check=False).returncode
    except OSError:
        return False


def main() -> None:
    try:
        install()
    except HostError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {environment.explain(str(error))}")
    except KeyboardInterrupt:
        sys.exit("stopped: run it again to go on")
    print(f"The packages for training are ready in {TRAIN_VENV}")


if __name__ == "__main__":
    main()
