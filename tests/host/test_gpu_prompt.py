"""The benchmark of a prompt, at toy size on the CPU."""

import os
import re
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu_prompt
from tools.host import ROOT

NUMBER = r"\s+\d+\.\d+"


@pytest.mark.since("0.27")
def test_toy_runs_to_the_end():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_prompt", "--toy"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for row in (
        r"^gpu_prompt: 8 tokens from two pictures at 112 px, CPU, torch \S+, \d{4}-\d\d-\d\d$",
        r"^8 tokens made after \d+ of prompt; medians of 3, in seconds$",
        *(rf"^{part}{NUMBER}$" for part in ("total", "vision", "prefill", "decode")),
        # What the medians of the parts leave of that of the total: on a busy machine less than 0.
        r"^rest\s+-?\d+\.\d+$",
        rf"^decode, a token{NUMBER},{NUMBER} of it in the layers$",
        rf"^floor of a token{NUMBER},{NUMBER} GiB at \S+ GB/s$",
        rf"^ratio to the floor{NUMBER}$",
        r"^peak memory\s+-$",
        r"^gpu_prompt: PASS",
    ):
        assert re.search(row, done.stdout, re.MULTILINE), (row, done.stdout)


def test_without_a_gpu_one_line_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_prompt"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu_prompt.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("gpu_prompt: no GPU here")
