"""What the arms run."""

import json

import pytest

from tools.evaluate.arms import Arm, ArmError, read_arms, read_workflow
from tools.evaluate.job import FRAMES_PREFIX, PICTURE_PLACEHOLDER
from tools.evaluate.prompts import make_prompts
from tools.host.workflow import find_node, read_prompt

from .jobs import SD3_VLM, WORKFLOWS

SD3 = WORKFLOWS / "2 Chain-of-Zoom SD3.json"
TAGS = WORKFLOWS / "more" / "Chain-of-Zoom SD3 + tags.json"
OWN = WORKFLOWS / "5 Your own checkpoint.json"
LOOP = {"class_type": "CoZChainLoop", "inputs": {}}


def classes(prompt):
    return sorted(node["class_type"] for node in prompt.values())


def test_chain_arms_run_the_loop_by_the_protocol():
    for arm in read_arms("chain-null,chain-vlm", SD3_VLM):
        (prompt,) = make_prompts(arm, 512, 4, 7)
        inputs = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
        protocol = {"steps": 4, "scale": 4.0, "size": 512, "frame": "whole picture square"}
        protocol |= {"center_x": 0.5, "center_y": 0.5, "seed": 7, "prompt": ""}
        assert {key: inputs[key] for key in protocol} == protocol
        assert prompt[inputs["image"][0]]["inputs"]["image"] == PICTURE_PLACEHOLDER
        common = ["CheckpointLoaderSimple", "CoZChainLoop", "CoZLoadSRLoRA", "LoadImage",
            "SaveImageAdvanced"]  # fmt: skip
        if arm.name == "chain-null":
            assert inputs["prompting"] == "text"
            assert not [key for key in inputs if key.startswith("prompting.")]
            assert classes(prompt) == common
        else:
            assert inputs["prompting"] == "vision-language model"
            assert inputs["prompting.vlm"] == ["5", 0]
            assert classes(prompt) == ["CLIPLoader", *common]


@pytest.mark.parametrize("workflow", [None, SD3_VLM, TAGS])
def test_the_arm_with_tags_needs_no_workflow_of_its_own(workflow):
    """So the paper's three kinds of prompt stand in one table."""
    (arm,) = read_arms("chain-tags", workflow)
    (prompt,) = make_prompts(arm, 512, 4, 7)
    inputs = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    chosen = {key: value for key, value in inputs.items() if key.startswith("prompting")}
    tagger = find_node(prompt, "CoZLoadTagger")
    kind = {"prompting": "tags (RAM/DAPE)"}
    assert chosen == kind | {"prompting.tagger": [tagger, 0], "prompting.exclude": ""}
    assert prompt[tagger]["inputs"]["dape_name"] == "DAPE.pth"
    assert "CLIPLoader" not in classes(prompt)


def test_the_arm_with_tags_takes_a_tagger_that_is_not_linked():
    (arm,) = read_arms("chain-tags", SD3_VLM)
    own = {"tagger_name": "own.safetensors", "dape_name": "none", "dape_strength": 1}
    arm.workflow["77"] = {"class_type": "CoZLoadTagger", "inputs": own}
    (prompt,) = make_prompts(arm, 512, 4, 7)
    assert prompt[find_node(prompt, "CoZLoadTagger")]["inputs"] == own


def test_an_arm_of_your_own_keeps_its_texts():
    shared, own = read_arms(f"chain-null,mine={OWN}", OWN)
    null, mine = (make_prompts(arm, 512, 4, 0)[0] for arm in (shared, own))
    texts = [p[find_node(p, "CoZChainLoop")]["inputs"]["prompt"] for p in (null, mine)]
    assert texts == ["", "macro photograph of a cup of coffee, foam, bubbles, sharp focus"]


@pytest.mark.parametrize(
    ("workflow", "step", "encoders"),
    [
        (None, "CoZUpscaleStep", []),
        (SD3, "CoZSRStep", ["CoZEncodePrompt"]),
        (OWN, "CoZRefineStep", ["CLIPTextEncode", "CLIPTextEncode"]),
    ],
)
def test_one_step_runs_the_nodes_of_the_loop(workflow, step, encoders):
    (arm,) = read_arms("onestep", workflow)
    (prompt,) = make_prompts(arm, 512, 4, 0)
    used = classes(prompt)
    assert used.count(step) == used.count("CoZCropCenterZoom") == used.count("CoZColorFix") == 4
    assert [name for name in used if "Encode" in name] == encoders
    assert "CoZChainLoop" not in used
    assert len([name for name in prompt if name.startswith(FRAMES_PREFIX)]) == 4


@pytest.mark.parametrize("inputs", [{}, {"backbone": "upscale model"}])
def test_one_step_of_a_loop_without_its_inputs(inputs):
    with pytest.raises(ArmError, match=r"the workflow's Chain Loop has no '.*': save it again"):
        make_prompts(Arm("onestep", {"1": LOOP | {"inputs": inputs}}), 512, 4, 0)


def test_a_workflow_in_the_api_format_is_the_same(tmp_path):
    path = tmp_path / "api.json"
    path.write_text(json.dumps(read_prompt(SD3_VLM)), "utf-8")
    assert read_workflow(path) == read_workflow(SD3_VLM)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "w.json is not a workflow of ComfyUI"),
        ("no json", "w.json is not a workflow of ComfyUI"),
        ('{"a": 1}', "w.json is not a workflow of ComfyUI"),
        ('{"1": {"class_type": "LoadImage", "inputs": {}}}', "has no Chain Loop outside its sub"),
        ('{"nodes": [], "links": []}', "has no Chain Loop outside its subgraphs"),
        (json.dumps(dict.fromkeys("ab", LOOP)), "has 2 Chain Loops: keep only the one to evaluate"),
    ],
)
def test_a_workflow_that_cannot_be_used(content, message, tmp_path):
    (tmp_path / "w.json").write_text(content, "utf-8")
    with pytest.raises(ArmError, match=message):
        read_workflow(tmp_path / "w.json")
