"""Every bundled workflow in two servers, one after the other: the same bytes.

In small, on random weights under the names of the templates' files. The templates that load Qwen3-VL
get the random Qwen2.5-VL: the host knows the other by a width that no test can afford. For the same
reason there is no file of SD-Turbo: test_inversion.py has the templates of InvSR.
"""

import json

import pytest
from PIL import Image

from tools.host import ROOT
from tools.host.client import ServerClient, run_prompt
from tools.host.server import serve
from tools.host.workflow import WORKFLOWS, find_node, read_prompt

pytestmark = pytest.mark.long

RUN = [path for path in WORKFLOWS if "CoZLoadInvSR" not in path.read_text("utf-8")]
PAPER = next(path for path in WORKFLOWS if "AR-2)" in path.stem)
SMALL = {
    "CoZChainLoop": {"size": 64, "steps": 3},
    "CoZFitImage": {"size": 64},
    "CoZFullImage": {"tile": 64, "overlap": 16},
    "CoZPromptExtractor": {"max_tokens": 6},
}
FEWER = {"prompting.max_tokens": 6, "backbone.sampling_steps": 2}


def small(path):
    prompt = read_prompt(path)
    for node in prompt.values():
        node["inputs"] |= SMALL.get(node["class_type"], {})
        node["inputs"] |= {key: FEWER[key] for key in FEWER if key in node["inputs"]}
        if node["class_type"] == "CLIPLoader":
            paper = read_prompt(PAPER)
            node |= paper[find_node(paper, "CoZLoadPromptExtractor")]
        if node["class_type"] == "CoZSamplePicture" and "Whole" in path.stem:
            node |= {"class_type": "LoadImage", "inputs": {"image": "small.png"}}
    return prompt


def outputs(url, prompt):
    """All that a run shows and saves: texts and records as they are, of files their bytes."""

    def read(value):
        if isinstance(value, str) and value.startswith(("[", "{")):
            value = json.loads(value)
        if isinstance(value, list):
            return [read(each) for each in value]
        if not (isinstance(value, dict) and "filename" in value):
            return value
        place = {name: value.pop(name) for name in ("filename", "subfolder", "type")}
        return value | {"bytes": ServerClient(url).download(place)}

    return {
        node: {key: read(ui[key]) for key in ui}
        for node, ui in run_prompt(url, prompt).outputs.items()
    }


@pytest.fixture(scope="module")
def both(models, tmp_path_factory):
    """Workflow -> what each of two servers made of it."""
    made = {path: [] for path in RUN}
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        with serve(arguments=models, folder=folder) as url:
            picture = Image.open(ROOT / "pictures" / "chelsea.png").crop((200, 100, 212, 108))
            picture.save(folder / "input" / "small.png")
            for path in RUN:
                made[path].append(outputs(url, small(path)))
    return made


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_same_workflow_same_seed_same_bytes(both, path):
    first, second = both[path]
    assert "bytes" in str(first)
    assert first == second
