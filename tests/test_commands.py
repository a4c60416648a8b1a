"""Each command starts. What it does is tested in tests/commands and tests/eval, by `make test-all`."""

import runpy
import subprocess
import sys

import pytest

from tools.host import ROOT

COMMANDS = ["convert", "demo", "evaluate", "host", "train_grpo", "train_lite", "train_sr", "verify"]
RELEASE = ["locks", "matrix", "release", "reliability", "verified"]


@pytest.mark.parametrize("name", [*COMMANDS, *map("release.{}".format, RELEASE)])
def test_a_command_describes_itself(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setattr(sys, "path", [*sys.path])  # verify puts the pack in front
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"tools.{name}", run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.startswith("usage: ")


def test_the_demo_runs(tmp_path):
    line = [sys.executable, "-m", "tools.demo", "--steps", "1", "--out", tmp_path]
    subprocess.run(line, cwd=ROOT, check=True)
    names = "chain.json scale_0.png scale_1.png source.png strip.png zoom.webp"
    assert sorted(path.name for path in tmp_path.iterdir()) == names.split()
