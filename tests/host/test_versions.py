"""The bundled workflow on the older hosts that the pack supports."""

import os

import pytest

from tools.client import run_prompt
from tools.server import serve
from tools.workflow import TEMPLATE, find_node, read_prompt


@pytest.mark.skipif(
    "COMFYUI_PATH" in os.environ,
    reason="the older hosts run with the pinned host's packages, COMFYUI_PATH brings others",
)
@pytest.mark.parametrize("version", ["0.24.0", "0.27.0"])
def test_template_runs(version):
    prompt = read_prompt(TEMPLATE)
    loop = find_node(prompt, "CoZChainLoop")
    prompt[loop]["inputs"] |= {"size": 128, "steps": 2}
    saved = {"chain": [loop, 3], "filename_prefix": "chain"}
    prompt["save"] = {"class_type": "CoZSaveChain", "inputs": saved}
    with serve(version) as url:
        run = run_prompt(url, prompt)
        assert len(run.outputs[f"{loop}.0.0.coz_collect"]["images"]) == 3
        prompt[loop]["inputs"] |= {"steps": 3}
        longer = run_prompt(url, prompt).executed
        load = {"class_type": "CoZLoadChain", "inputs": {"folder": "chain_00002_"}}
        show = {"class_type": "PreviewImage", "inputs": {"images": ["load", 2]}}
        shown = run_prompt(url, {"load": load, "show": show}).outputs["show"]["images"]
    assert len(shown) == 4
    assert [node for node in longer if ".coz_sr_" in node] == [f"{loop}.0.0.coz_sr_3"]
