"""The benchmarks of the GPU, at toy size on the CPU, and those on a simulated one."""

import importlib
import os
import re
import subprocess
import sys

import pytest
import torch

from benchmarks import gpu_chain
from tools.host import ROOT

pytestmark = pytest.mark.tools

CELLS = r"( \| [\d,.]+){4,8} \|$"
NUMBER = r"\s+\d+\.\d+"
TIMES = rf"{NUMBER * 4}{NUMBER}x"
PARTS = ("vision", "prefill", "tokens", "text", "encode", "network", "decode", "load")
ROWS = {
    "gpu_chain": [
        r"^gpu_chain: 4 steps at 64 px, CPU, torch \S+, \d{4}-\d\d-\d\d$",
        rf"^the authors' sr: encode{NUMBER} \+ network{NUMBER} \+ decode{NUMBER}; one step:",
        rf"^authors, fp32, text fp16{TIMES}\s+-\s+-$",
        rf"^fp32, no T5{TIMES}{NUMBER}\s+-$",
        r"^gpu_chain: PASS",
    ],
    "card": [
        r"^card: 1 steps at 512 px on simulated cards, torch \S+$",
        *(rf"^\| {part}{CELLS}" for part in PARTS),
        r"^\| network \| 0\.002 / 0\.002 = 1\.00 \|",  # the authors' has the same arithmetic
        r"^Peak of the authors' .*: \d+\.\d GiB \(simulated\)\.$",
        r"^\| SD3 \| _t5xxlfp8 \| 8 GB \| \d+\.\d\d \| \w+",
        r"^\| AR-2 \| _t5xxlfp8 \| 8 GB \| \d+\.\d\d \| \w+",
        rf"^\| 256x{CELLS}",
        r"^card: PASS$",
    ],
    "gpu_prompt": [
        r"^gpu_prompt: 8 tokens from two images at 112 px, CPU, torch \S+, \d{4}-\d\d-\d\d$",
        r"^8 tokens after a prompt of \d+; medians of 3 runs, in seconds$",
        *(rf"^{part}{NUMBER}$" for part in ("total", "vision", "prefill", "decode")),
        # What the medians of the parts leave of that of the total: on a busy machine less than 0.
        r"^rest\s+-?\d+\.\d+$",
        rf"^decode, one token{NUMBER},{NUMBER} of it in the layers$",
        rf"^floor of a token{NUMBER},{NUMBER} GiB at \S+ GB/s$",
        rf"^ratio to the floor{NUMBER}$",
        r"^peak memory\s+-$",
        r"^gpu_prompt: PASS",
    ],
}


@pytest.mark.parametrize("name", ["gpu_chain", "gpu_prompt", "card"])
def test_toy_runs_to_the_end(name):
    line = [sys.executable, "-m", f"benchmarks.{name}", "--toy"]
    without_gpu = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line, cwd=ROOT, env=without_gpu, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ROWS[name]:
        assert re.search(row, done.stdout, re.MULTILINE), (row, done.stdout)


@pytest.mark.parametrize("name", ["gpu_chain", "gpu_prompt"])
def test_without_a_gpu_one_line_says_so(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    importlib.import_module(f"benchmarks.{name}").main()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{name}: no GPU here")


@pytest.mark.parametrize(
    ("seconds", "peaks", "missed"),
    [
        (0.2, (17.0, 12.0, 20.0, 20.0), []),
        (0.2, (17.0, 20.0, 20.0, 12.0), []),
        (0.4, (17.0, 12.0, 9.0, 12.0), ["2.5 times as fast, less than 5"]),
        (
            0.2,
            (18.0, 12.5, 9.0, 13.0),
            ["18.0 GiB in 16 bits, more than 17", "12.5 GiB with T5 in fp8, more than 12"],
        ),
    ],
)
def test_goals(seconds, peaks, missed):
    rows = [gpu_chain.Row("ours", {"all": seconds}, peak) for peak in peaks]
    assert gpu_chain.find_missed_goals(gpu_chain.Row("theirs", {"all": 1.0}), rows) == missed


def test_the_simulated_card_is_compared_with_the_measured_one():
    row = gpu_chain.Row("ours", {"text": 73.0, "sr": 6.04}, 11.0)
    assert gpu_chain.compare_with_estimates(row, 1e30, 1e9) == (  # reading takes 36.5 s and 15.1
        "ours: text 2.00 times its estimate, sr 0.40 times its estimate; peak +0.5 GiB from the simulated 10.5"
    )
    row.seconds = {"text": 4.956, "sr": 2 * (1.118 + 2.56 + 2.515)}  # computing
    start = "ours: text 1.00 times its estimate, sr 2.00 times its estimate;"
    assert gpu_chain.compare_with_estimates(row, 1e12, 1e30).startswith(start)
