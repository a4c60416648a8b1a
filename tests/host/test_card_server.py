"""A real server with the simulated card runs templates over HTTP."""

import json
from pathlib import Path

import numpy as np
import pytest
import requests

from tools.host import ROOT
from tools.host.client import run_prompt
from tools.host.workflow import find_node, read_prompt

from .prompts import more, pictures, preview_scales

START = "1 Start here - zoom into a picture (no downloads)"
PAPER = "4 Chain-of-Zoom as in the paper (AR-2)"
SMALL = {START: {"size": 128}, PAPER: {"size": 64, "steps": 2, "prompting.max_tokens": 3}}
TOLERANCE = {START: 0, PAPER: 1}
"""Of 255. On the card ComfyUI keeps the weights of SD3 in float16, on the CPU in float32."""


@pytest.fixture(scope="module")
def card_options(tmp_path_factory):
    """Options for a server that has the card."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "card_node.py").symlink_to(Path(__file__).with_name("card_node.py"))
    config = folder / "card.yaml"
    config.write_text(json.dumps({"card": {"custom_nodes": str(folder)}}), "utf-8")
    return ["--extra-model-paths-config", str(config)]


@pytest.mark.since("0.27")
@pytest.mark.parametrize("name", [START, *more(PAPER)])
def test_a_template_gives_the_cpus_pictures(servers, card_options, name):
    prompt = read_prompt(ROOT / "workflows" / f"{name}.json")
    loop = find_node(prompt, "CoZChainLoop")
    prompt[loop]["inputs"] |= SMALL[name]
    preview_scales(prompt, loop)
    cpu, card = servers()[0], servers(*card_options)[0]
    want, got = (pictures(url, run_prompt(url, prompt), prompt) for url in (cpu, card))
    assert len(got) == len(want) == 1 + prompt[loop]["inputs"]["steps"]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a.astype(int), b, rtol=0, atol=TOLERANCE[name])
    report = requests.get(f"{card}/card").json()
    assert report["flops"] > 10**8
    assert 0 < report["peak"] < 2**30
