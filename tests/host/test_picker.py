"""What the page gets for the target picker."""

import io
import json

import numpy as np
import torch
from PIL import Image

from tools.host.client import ServerClient, run_prompt

from .prompts import chain_prompt, make_node


def test_a_sample_lies_where_the_hosts_pictures_do(node, monkeypatch):
    import comfy.model_management

    # With --gpu-only that is the card; meta stands for any device that is not the CPU.
    monkeypatch.setattr(comfy.model_management, "intermediate_device", lambda: torch.device("meta"))
    assert node("CoZSamplePicture").execute("coffee.png")[0].device.type == "meta"


def test_source_is_shown_with_its_size_and_target(server):
    prompt = chain_prompt(steps=1, center_x=0.45)
    place = {"frame": "native pixels", "size": 64, "center_x": 0.2, "center_y": 0.6}
    prompt["first"] = make_node("CoZFitImage", image=["wide", 0], **place)
    wide = {"upscale_method": "bilinear", "width": 2000, "height": 500, "crop": "disabled"}
    prompt["wide"] = make_node("ImageScale", image=["source", 0], **wide)
    target = {"center_x": ["first", 2], "center_y": ["first", 3]}
    prompt["zoom"] = make_node(
        "CoZCropCenterZoom", image=["first", 0], scale=4, resampling="bicubic", **target
    )
    prompt["shown"] = make_node("PreviewImage", images=["zoom", 0])
    outputs = run_prompt(server, prompt).outputs
    sources = {
        node: json.loads(*ui["coz_source"]) for node, ui in outputs.items() if "coz_source" in ui
    }

    # Nor is any of them one of the results that an app of the frontend shows: files in a list.
    assert {
        key for ui in outputs.values() for key in ui if any(isinstance(x, dict) for x in ui[key])
    } == {"images"}

    # The loop's own first frame and zooms write no picture each.
    assert sources.keys() == {"loop.0.0.coz_collect", "first", "zoom"}
    known = {
        node: (source["width"], source["height"], source["target"])
        for node, source in sources.items()
    }
    assert known == {
        "loop.0.0.coz_collect": (512, 512, [0.45, 0.7]),
        "first": (2000, 500, [0.2, 0.6]),
        "zoom": (64, 64, [0.5, 0.5]),
    }
    file = {key: sources["first"][key] for key in ("filename", "subfolder", "type")}
    picture = Image.open(io.BytesIO(ServerClient(server).download(file)))
    assert np.asarray(picture).shape == (384, 1536, 3)

    # What comes from the cache shows its picture too: a reloaded page has nothing else.
    again = run_prompt(server, prompt)
    assert again.executed == []
    assert json.loads(*again.outputs["first"]["coz_source"]) == sources["first"]
