"""What cannot run, in the real host: the sentence that a person reads, and that it comes in time."""

import json
import re

import pytest

from tests.support.images import noise
from tools.host.client import PromptError, run_prompt

from .prompts import VERSIONS, as_full_image, chain_prompt, make_node


def renamed(prompt, names):
    """The prompt with other node ids."""

    def link(value):
        return [names.get(value[0], value[0]), value[1]] if isinstance(value, list) else value

    for node in prompt.values():
        node["inputs"] = {key: link(value) for key, value in node["inputs"].items()}
    return {names.get(node, node): about for node, about in prompt.items()}


def test_a_node_id_with_a_dot_gets_its_lines(host):
    host.run(renamed(chain_prompt(steps=1), {"loop": "a.b"}))
    assert {node for node, _ in host.notices} == {"a.b"}


def test_a_node_id_with_a_dot_gets_its_picture(host):
    prompt = chain_prompt()
    place = {"scale": 4.0, "center_x": 0.5, "center_y": 0.5}
    prompt["zoom"] = make_node("CoZCropCenterZoom", image=["source", 0], **place)
    prompt["shown"] = make_node("PreviewImage", images=["zoom", 0])
    host.run(renamed(prompt, {"zoom": "a.b"}), "shown")
    assert json.loads(host.ui("a.b")["coz_source"][0])["width"] == 512


def test_a_first_frame_has_a_longest_side(executor):
    prompt = chain_prompt(frame="whole picture", size=512)
    prompt["source"] = make_node("EmptyImage", width=5, height=700, batch_size=1, color=0)
    sentence = "the first frame would have 512 x 71,680 pixels, because frame is whole picture, .* has 5 x 700"
    with pytest.raises(RuntimeError, match=sentence):
        executor("CLASSIC").run(prompt)
    place = {"image": ["source", 0], "frame": "whole picture", "size": 512}
    prompt["loop"] = make_node("CoZFitImage", **place | {"center_x": 0.5, "center_y": 0.5})
    prompt["scales"]["inputs"]["images"] = ["loop", 0]
    with pytest.raises(RuntimeError, match=sentence):
        executor("CLASSIC").run(prompt)


@pytest.fixture
def thin(nodes_of):
    """16 steps in frames of 5 x 512 pixels, each window 1 x 128: the last far below a source pixel."""
    of = nodes_of("loop.collect")
    return of.ZoomChain(
        scale=4.0,
        frames=noise(18, 3, 512, 5).split(1),
        windows=(of.Window(0, 0, 5, 512), *[of.Window(2, 200, 1, 128)] * 16),
        prompts=("",) * 16,
        seeds=(0,) * 16,
        target=of.Target(0.5, 0.5),
    )


def test_thin_frames_of_16_steps_in_every_node_of_a_chain(host, thin, give, output_folder):
    give("TestThin", "COZ_CHAIN", thin)
    video = {"seconds_per_step": 0.1, "fps": 2.0, "easing": "none", "hold": 0.0, "reverse": False}
    inputs = {
        "CoZZoomViewer": {},
        "CoZDetailMap": {},
        "CoZMeasure": {},
        "CoZZoomVideo": video | {"width": 0, "height": 0},
        "CoZSaveChain": {"filename_prefix": "thin"},
        "CoZZoomStrip": {"layout": "grid", "labels": False},
    }
    for class_type, values in inputs.items():
        shown = make_node(class_type, chain=["chain", 0], **values)
        prompt = {"chain": make_node("TestThin"), "node": shown}
        assert "node" in host.run(prompt, "node"), class_type


@pytest.fixture(scope="module", params=VERSIONS, ids=str)
def each_server(request, servers):
    return servers(version=request.param)[0]


OPTIONS = {
    "backbone": '"upscale model", "one-step diffusion"(, "[^"]+")*',
    "prompting": '"text"(, "[^"]+")*',
    "sampling_mode": '"off"',
}
"""As regular expressions, each without its last option: later ones are appended."""


def full_prompt():
    """A Full-Image SR on the built-in model."""
    return as_full_image(chain_prompt(), tile=64, overlap=8)


def extractor_prompt():
    """A VLM Prompt Extractor whose model is never loaded."""
    clip = {"clip_name1": "a", "clip_name2": "b", "type": "sd3"}
    inputs = {"vlm": ["clip", 0], "image": ["source", 0], "prompt": "", "sampling_mode": "off"}
    return {
        "source": chain_prompt()["source"],
        "clip": make_node("DualCLIPLoader", **clip),
        "loop": make_node("CoZPromptExtractor", **inputs | {"instruction": "", "max_tokens": 32}),
        "show": make_node("PreviewAny", source=["loop", 0]),
    }


@pytest.mark.parametrize("value", [None, "banana", ["source", 0]], ids=str)
@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        (chain_prompt, "backbone"),
        (chain_prompt, "prompting"),
        (full_prompt, "backbone"),
        (full_prompt, "prompting"),
        (extractor_prompt, "sampling_mode"),
    ],
)
def test_an_unknown_option_is_refused_before_the_work(each_server, prompt, name, value):
    prompt = prompt()
    prompt["loop"]["inputs"].pop(name)
    if value is not None:
        prompt["loop"]["inputs"][name] = value
    with pytest.raises(PromptError) as error:
        run_prompt(each_server, prompt)
    said = json.loads(str(error.value))["node_errors"]["loop"]["errors"]
    sentence = f'{name} must be {OPTIONS[name]} or "[^"]+", but it is missing, linked or unknown'
    assert {each["type"] for each in said} == {"custom_validation_failed"}
    assert all(re.search(sentence, each["details"]) for each in said)


def test_limits_still_hold_beside_it(each_server):
    with pytest.raises(PromptError, match="smaller than min") as error:
        run_prompt(each_server, chain_prompt(steps=0))
    assert "must be" not in str(error.value)
