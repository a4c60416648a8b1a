"""The reward of words by what a real ComfyUI makes of them."""

import json
import math

import pytest
import requests
from PIL import Image

from tools.host.server import serve
from tools.train_grpo.config import Feedback as Settings
from tools.train_grpo.feedback import Feedback

# The words choose the second picture: without any it is grey.png.
WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "{image}"}},
    "2": {"class_type": "LoadImage", "inputs": {"image": "coz-training/{prompt}grey.png"}},
    "3": {
        "class_type": "ImageBlend",
        "inputs": {
            "image1": ["1", 0],
            "image2": ["2", 0],
            "blend_factor": 0.5,
            "blend_mode": "normal",
        },
    },
    "4": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
}
MEASURE = "tests.train.measure:brightness"


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comfyui")
    inputs = folder / "input" / "coz-training"
    inputs.mkdir(parents=True)
    for name, grey in (("", 100), ("bright", 140), ("dark", 60)):
        Image.new("RGB", (32, 32), (grey,) * 3).save(inputs / f"{name}grey.png")
    with serve(folder=folder) as url:
        yield url


@pytest.fixture
def feedback(tmp_path):
    def make(url="http://127.0.0.1:9", workflow=WORKFLOW, quality=MEASURE):
        (tmp_path / "step.json").write_text(json.dumps(workflow))
        return Feedback(
            Settings(url=url, workflow="step.json", quality=quality, spread=20.0), tmp_path
        )

    return make


def test_words_are_worth_what_they_do_to_the_picture(feedback, comfyui):
    views = [Image.new("RGB", (32, 32), (grey,) * 3) for grey in (50, 50, 50, 200)]
    words = ["bright", "dark", "", "bright"]
    found = feedback(comfyui)(["a", "a", "a", "b"], views, words)
    assert found == pytest.approx([math.tanh(1), -math.tanh(1), 0, math.tanh(1)], abs=0.02)
    # Two of a and one of b; the view without words once for each.
    assert len(requests.get(f"{comfyui}/history").json()) == 5


def test_a_refused_workflow_is_told(feedback, comfyui):
    view = Image.new("RGB", (32, 32))
    with pytest.raises(ValueError, match=r"makes no image: .*Invalid image file"):
        feedback(comfyui)(["a"], [view], ["no such words"])


def test_what_cannot_be_used_is_told(feedback):
    with pytest.raises(ValueError, match=r"feedback: no ComfyUI answers at http://127.0.0.1:9"):
        feedback()(["a"], [Image.new("RGB", (32, 32))], ["bright"])
    with pytest.raises(ValueError, match=r"step.json has no \{prompt\} in it"):
        feedback(workflow={"1": WORKFLOW["1"]})
    with pytest.raises(ValueError, match=r"save it with Export \(API\)"):
        feedback(workflow={"nodes": [], "links": []})
    with pytest.raises(ValueError, match=r"feedback\.quality musiq cannot be loaded"):
        feedback(quality="musiq")
