"""The benchmark of the GPU, at toy size on the CPU."""

import os
import re
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu_chain
from tools.host import ROOT

NUMBER = r"\s+\d+\.\d+"


def test_toy_runs_to_the_end():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_chain", "--toy"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    times = rf"{NUMBER * 4}{NUMBER}x"
    for row in (
        r"^gpu_chain: 4 steps at 64 px, CPU, torch \S+, \d{4}-\d\d-\d\d$",
        rf"^reference's sr: encode{NUMBER} \+ network{NUMBER} \+ decode{NUMBER}; one step:",
        rf"^reference, fp32, text fp16{times}\s+-\s+-$",
        rf"^fp32, no T5{times}{NUMBER}\s+-$",
        r"^gpu_chain: PASS",
    ):
        assert re.search(row, done.stdout, re.MULTILINE), (row, done.stdout)


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_chain"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu_chain.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("gpu_chain: no GPU here")


@pytest.mark.parametrize(
    ("seconds", "peaks", "missed"),
    [
        (0.2, (17.0, 12.0, 20.0, 20.0), []),
        (0.2, (17.0, 20.0, 20.0, 12.0), []),
        (0.4, (17.0, 12.0, 9.0, 12.0), ["2.5 times as fast, not 5"]),
        (0.2, (18.0, 12.5, 9.0, 13.0), ["18.0 GiB, not 17", "12.5 GiB, not 12"]),
    ],
)
def test_goals(seconds, peaks, missed):
    theirs = gpu_chain.Row("reference", {"all": 1.0})
    rows = [gpu_chain.Row("ours", {"all": seconds}, peak) for peak in peaks]
    assert gpu_chain.find_missed_goals(theirs, rows) == missed
