"""The bundled workflows on the older hosts that the pack supports, on tiny weights."""

from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from tools.host.client import run_prompt
from tools.host.workflow import FIRST_TEMPLATE, WORKFLOWS, find_node, read_prompt

from .prompts import make_node, steps_run

SD3, AR_2, OWN, WHOLE = (path for path in WORKFLOWS if path.stem[0] in "2456")


class Older(NamedTuple):
    folder: Path
    url: str


@pytest.fixture(scope="module", params=["0.27.0"])
def older(request, servers):
    url, folder = servers(version=request.param)
    pictures = folder / "input" / "pictures"
    pictures.mkdir()
    for name, size in (("a", (30, 20)), ("b", (20, 30))):
        Image.new("RGB", size, "orange").save(pictures / f"{name}.png")
    return Older(folder, url)


def prompt_of(workflow, **inputs):
    """The workflow on small frames, with some of the loop's inputs changed."""
    prompt = read_prompt(workflow)
    prompt[find_node(prompt, "CoZChainLoop")]["inputs"] |= {"size": 64} | inputs
    return prompt


def folder_prompt():
    """The whole-picture workflow with a folder of the input folder in place of its sample."""
    prompt = read_prompt(WHOLE)
    folder = make_node("LoadImageDataSetFromFolder", folder="pictures")
    return prompt | {find_node(prompt, "CoZSamplePicture"): folder}


def test_workflows_without_downloads_run(older):
    prompt = prompt_of(FIRST_TEMPLATE, size=128, steps=2)
    loop = find_node(prompt, "CoZChainLoop")
    prompt["save"] = make_node("CoZSaveChain", chain=[loop, 3], filename_prefix="chain")
    assert len(run_prompt(older.url, prompt).outputs[f"{loop}.0.0.coz_collect"]["images"]) == 3
    prompt[loop]["inputs"] |= {"steps": 3}
    longer = run_prompt(older.url, prompt).executed
    load = make_node("CoZLoadChain", folder="chain_00002_")
    show = make_node("PreviewImage", images=["load", 2])
    shown = run_prompt(older.url, {"load": load, "show": show}).outputs["show"]
    assert len(shown["images"]) == 4
    run_prompt(older.url, folder_prompt())
    files = (older.folder / "output").glob("chain_of_zoom_*.png")
    assert sorted(Image.open(path).size for path in files) == [(80, 120), (120, 80)]
    assert [node for node in longer if ".coz_sr_" in node] == [f"{loop}.0.0.coz_sr_3"]


@pytest.mark.long
def test_diffusion_backbones_run_and_go_on(older):
    def steps_of(*prompt, **inputs):
        return steps_run(run_prompt(older.url, prompt_of(*prompt, **inputs)).executed)

    assert steps_of(SD3, steps=2) == [1, 2]
    assert steps_of(SD3, steps=3) == [3]
    assert steps_of(OWN, steps=1, **{"backbone.sampling_steps": 1}) == [1]


@pytest.mark.long
def test_a_vision_language_model_is_asked(older):
    prompt = prompt_of(AR_2, steps=2, **{"prompting.max_tokens": 6})
    inputs = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    run = run_prompt(older.url, prompt)
    assert steps_run(run.executed, "prompt") == steps_run(run.executed) == [1, 2]
    inputs["steps"] = 3
    assert steps_run(run_prompt(older.url, prompt).executed, "prompt") == [3]
