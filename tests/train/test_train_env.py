import subprocess
import sys

import pytest

from tools.host import ROOT
from tools.host.environment import wants_newest
from tools.train_grpo.environment import python_path


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(wants_newest(), reason="NEWEST_PACKAGES looks for newer ones each time")
def test_what_is_there_is_left_alone():
    if not python_path().is_file():
        pytest.skip("there is no .venv-train: make train-env")
    first, result = (run("-m", "tools.train_grpo.environment") for _ in range(2))
    assert first.returncode == result.returncode == 0  # the first may install newer versions
    assert result.stdout == f"The packages for training are ready in {ROOT / '.venv-train'}\n"


def test_an_old_python_is_named():
    code = "import sys; sys.version_info = (3, 10, 4); import runpy; "
    result = run(
        "-c", code + "runpy.run_module('tools.train_grpo.environment', run_name='__main__')"
    )
    assert result.returncode == 1
    assert result.stderr == (
        "error: TRL needs Python 3.11 or newer, but this is 3.10.4: make train-env PYTHON=python3.11\n"
    )


def test_another_python_is_sent_to_the_right_one():
    result = run("-m", "tools.train_grpo", "prepare", "pictures", "/tmp/nothing")
    assert result.stderr == (
        "error: this Python has no datasets: make train-env, then .venv-train/bin/python -m "
        "tools.train_grpo\n"
    )
