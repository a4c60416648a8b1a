import json
from pathlib import Path

import pytest
from PIL import Image

from tools.host import ROOT
from tools.host.workflow import WORKFLOWS, find_node, read_prompt, to_prompt

LISTED = [path for path in WORKFLOWS if path.parent.name == "workflows"]
"""What the template browser lists."""


def node(node_id, node_type, widgets=(), values=(), links=(), mode=0):
    inputs = [{"name": name, "link": link} for name, link in links]
    inputs += [{"name": name, "link": None, "widget": {"name": name}} for name in widgets]
    about = {"id": node_id, "type": node_type, "mode": mode}
    return about | {"inputs": inputs, "widgets_values": list(values)}


def test_a_link_into_a_widget_replaces_its_value():
    step = node(2, "Step", ["steps", "size"], [4, 512])
    step["inputs"][0]["link"] = 1
    workflow = {"nodes": [node(1, "Number"), step], "links": [[1, 1, 0, 2, 0, "INT"]]}
    assert to_prompt(workflow)["2"]["inputs"] == {"steps": ["1", 0], "size": 512}


@pytest.mark.parametrize(
    ("node_type", "mode"), [("Source", 2), ("Source", 4), ("Note", 0), ("MarkdownNote", 0)]
)
def test_what_does_not_run_is_left_out(node_type, mode):
    idle = node(1, node_type, ["path"], ["a.png"], mode=mode)
    nodes = [idle, node(2, "Step", links=[("image", 1)])]
    workflow = {"nodes": nodes, "links": [[1, 1, 0, 2, 0, "IMAGE"]]}
    assert to_prompt(workflow) == {"2": {"class_type": "Step", "inputs": {}}}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_bundled_workflow(path):
    workflow = json.loads(path.read_text("utf-8"))
    nodes = {entry["id"]: entry for entry in workflow["nodes"]}
    for link, source, slot, target, entry, kind in workflow["links"]:
        assert link in nodes[source]["outputs"][slot]["links"]
        assert nodes[target]["inputs"][entry]["link"] == link
        assert nodes[source]["outputs"][slot]["type"] == kind
    assert workflow["version"] == 0.4
    assert workflow["last_node_id"] >= max(nodes)
    for entry in workflow["nodes"]:
        if entry["type"] != "MarkdownNote":
            ours = entry["type"].startswith("CoZ")
            assert entry["properties"]["Node name for S&R"] == entry["type"]
            assert entry["properties"]["cnr_id"] == ("chain-of-zoom" if ours else "comfy-core")
            assert entry["properties"]["ver"]


PAGE_WIDGETS = {("CoZChainLoop", "target"), ("CoZSamplePicture", "choose")}
"""Those that the page's code adds to a node."""
RESULT_NODES = {"CoZZoomViewer", "SaveImage"}


@pytest.mark.parametrize("path", [p for p in LISTED if p.stem[0] in "1256"], ids=lambda p: p.stem)
def test_an_app_sets_what_is_there_and_shows_one_result(path):
    workflow = json.loads(path.read_text("utf-8"))
    nodes = {entry["id"]: entry for entry in workflow["nodes"]}
    extra = workflow["extra"]
    assert extra["linearMode"] is False  # it opens as a graph, and the app is one click away
    assert "id" not in workflow  # else all who open it have one workflow's runs
    for node_id, name in extra["linearData"]["inputs"]:
        node = nodes[node_id]
        widgets = {e["widget"]["name"]: e["link"] for e in node["inputs"] if "widget" in e}
        # Files from before own_picture: the page adds it.
        own = (node["type"], name) == ("CoZSamplePicture", "own_picture")
        assert own or (node["type"], name) in PAGE_WIDGETS or widgets[name] is None
        assert node["mode"] == 0
    (output,) = extra["linearData"]["outputs"]
    assert nodes[output]["type"] in RESULT_NODES
    assert nodes[output]["mode"] == 0


def test_the_blueprint_is_described_as_its_subgraph():
    blueprint = json.loads((ROOT / "subgraphs" / "Chain-of-Zoom.json").read_text("utf-8"))
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    assert blueprint["extra"]["BlueprintDescription"] == subgraph["description"]
    assert blueprint["extra"]["BlueprintSearchAliases"]
    assert {"steps", "center_x", "center_y"} <= {entry["name"] for entry in subgraph["inputs"]}


@pytest.mark.parametrize("path", LISTED, ids=lambda path: path.stem)
def test_listed_workflow_has_a_thumbnail(path):
    """The template browser shows it, cut to a square, beside the file's name."""
    thumbnail = path.with_suffix(".jpg")
    with Image.open(thumbnail) as picture:
        assert picture.width == picture.height
    assert thumbnail.stat().st_size <= 150_000


def test_the_template_browser_lists_six():
    assert [path.stem for path in LISTED] == [
        "1 Start here - zoom into a picture (no downloads)",
        "2 Chain-of-Zoom SD3",
        "3 Chain-of-Zoom SD3 + VLM",
        "4 Chain-of-Zoom as in the paper (AR-2)",
        "5 Your own checkpoint",
        "6 Whole picture 4x (no downloads)",
    ]
    assert {path.parent.name for path in WORKFLOWS} == {"workflows", "more"}
    pictures = (ROOT / "workflows").rglob("*.jpg")
    assert sorted(path.with_suffix(".json") for path in pictures) == LISTED


MISSING_MODELS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft", ".onnx", ".gguf")
"""What the frontends 1.47 and 1.58 list as missing."""


def read_notes(nodes):
    return "".join(n["widgets_values"][0] for n in nodes if n["type"] == "MarkdownNote")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_file_of_the_sr_lora_has_its_address(path):
    nodes = json.loads(path.read_text("utf-8"))["nodes"]
    notes = read_notes(nodes)
    for node in nodes:
        if node["type"] != "CoZLoadSRLoRA":
            continue
        models = {model["name"]: model for model in node["properties"]["models"]}
        assert [*models] == node["widgets_values"][:2]
        for name, model in models.items():
            assert model["url"].endswith(f"/{name}")
            # The template step by step refers to template 4.
            if name.endswith(MISSING_MODELS) or "step by step" in path.stem:
                continue
            assert f"[{name}]({model['url']})" in notes
            assert f"ComfyUI's list of missing models leaves out {name}" in notes
            assert f"{Path(name).stem}.safetensors" in notes


def test_the_tile_control_net_waits_for_its_file():
    """Its loader is muted, so that the template runs without the file."""
    (path,) = (path for path in LISTED if path.stem == "5 Your own checkpoint")
    workflow = json.loads(path.read_text("utf-8"))
    prompt = to_prompt(workflow)
    assert "backbone.control_net" not in prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    (loader,) = (node for node in workflow["nodes"] if node["type"] == "ControlNetLoader")
    loader["mode"] = 0
    prompt = to_prompt(workflow)
    inputs = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    assert inputs["backbone.control_net"] == [find_node(prompt, "ControlNetLoader"), 0]
    (model,) = loader["properties"]["models"]
    assert [model["name"]] == loader["widgets_values"]
    notes = read_notes(workflow["nodes"])
    for file in (model["name"], "control_v11f1e_sd15_tile_fp16.safetensors"):
        assert f"[{file}](https://huggingface.co/" in notes


@pytest.mark.parametrize(
    "path", [path for path in WORKFLOWS if "no downloads" in path.stem], ids=lambda path: path.stem
)
def test_template_needs_nothing_that_is_not_in_the_pack(path):
    prompt = read_prompt(path)
    sample = prompt[find_node(prompt, "CoZSamplePicture")]["inputs"]["picture"]
    model = prompt[find_node(prompt, "UpscaleModelLoader")]["inputs"]["model_name"]
    assert (ROOT / "pictures" / sample).exists()
    assert (ROOT / "models" / model).exists()
