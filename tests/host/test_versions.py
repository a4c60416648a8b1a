"""The bundled workflow on the older hosts that the pack supports."""

import os

import pytest
from PIL import Image

from tools.client import run_prompt
from tools.server import serve
from tools.workflow import TEMPLATE, find_node, read_prompt

WHOLE = TEMPLATE.with_name("7 Whole picture 4x (no downloads).json")


def folder_prompt():
    """The whole-picture workflow with a folder of the input folder in place of its sample."""
    prompt = read_prompt(WHOLE)
    folder = {"class_type": "LoadImageDataSetFromFolder", "inputs": {"folder": "pictures"}}
    return prompt | {find_node(prompt, "CoZSamplePicture"): folder}


@pytest.mark.skipif(
    "COMFYUI_PATH" in os.environ,
    reason="the older hosts run with the pinned host's packages, COMFYUI_PATH brings others",
)
@pytest.mark.parametrize("version", ["0.24.0", "0.27.0"])
def test_templates_run(version, tmp_path):
    pictures = tmp_path / "input" / "pictures"
    pictures.mkdir(parents=True)
    for name, size in (("a", (30, 20)), ("b", (20, 30))):
        Image.new("RGB", size, "orange").save(pictures / f"{name}.png")
    prompt = read_prompt(TEMPLATE)
    loop = find_node(prompt, "CoZChainLoop")
    prompt[loop]["inputs"] |= {"size": 128, "steps": 2}
    saved = {"chain": [loop, 3], "filename_prefix": "chain"}
    prompt["save"] = {"class_type": "CoZSaveChain", "inputs": saved}
    with serve(version, folder=tmp_path) as url:
        run = run_prompt(url, prompt)
        assert len(run.outputs[f"{loop}.0.0.coz_collect"]["images"]) == 3
        prompt[loop]["inputs"] |= {"steps": 3}
        longer = run_prompt(url, prompt).executed
        load = {"class_type": "CoZLoadChain", "inputs": {"folder": "chain_00002_"}}
        show = {"class_type": "PreviewImage", "inputs": {"images": ["load", 2]}}
        shown = run_prompt(url, {"load": load, "show": show}).outputs["show"]["images"]
        run_prompt(url, folder_prompt())
    results = [Image.open(path).size for path in (tmp_path / "output").glob("chain_of_zoom_*.png")]
    assert sorted(results) == [(80, 120), (120, 80), (128, 128), (128, 128)]
    assert len(shown) == 4
    assert [node for node in longer if ".coz_sr_" in node] == [f"{loop}.0.0.coz_sr_3"]
