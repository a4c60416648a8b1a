"""Prompts in the API format, as the tests submit them, and what their runs show."""

import io

import numpy as np
import pytest
from PIL import Image

from tools.host.client import ServerClient


def more(*values):
    """Parameters of which `make test-all` alone makes tests."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]


VERSIONS = [None, *more("0.27.0")]
"""Of ComfyUI: the pinned one, and the older one that test_versions.py tries in `make test`."""

TILED = {"scale": 4.0, "passes": 1, "tile": 512, "overlap": 128, "adaptive_overlap": False}
TILED |= {"tile_prompts": "", "consistency": 0.0}
"""The widgets of Full-Image SR that Chain Loop has not, with their defaults."""


REACHES_PIXELS = {"coz_lite_x4.safetensors": 8, "coz_lite_x4_texture.safetensors": 16}
"""Of the built-in upscale models."""

OWN_SAMPLING = {"cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.6}
"""Widgets of "any checkpoint" and of CoZ Refine Step."""


def make_node(class_type, **inputs):
    """A node of a prompt; inputs with a dot in their name come as ``**{name: value}``."""
    return {"class_type": class_type, "inputs": inputs}


def make_class(run, kinds, returns=(), need="required", **attributes):
    """A node's class: what it does, by name the kinds of its inputs, and the kinds of its outputs."""
    pairs = kinds.items()
    inputs = {need: {name: kind if isinstance(kind, tuple) else (kind,) for name, kind in pairs}}
    members = {"INPUT_TYPES": classmethod(lambda cls: inputs), "run": run, "FUNCTION": "run"}
    members |= {"RETURN_TYPES": returns, "CATEGORY": "test", **attributes}
    return type("TestNode", (), members)


def chain_prompt(image=("source", 0), model=("model", 0), **inputs):
    """A Chain Loop with its defaults, on the built-in model, its scales previewed."""
    loop = {"image": list(image), "steps": 4, "scale": 4.0, "center_x": 0.3, "center_y": 0.7}
    loop |= {"backbone": "upscale model", "backbone.upscale_model": list(model)}
    loop |= {"backbone.resampling": "bicubic", "color_fix": "wavelet", "prompting": "text"}
    loop |= {"prompt": "", "step_prompts": "", "seed": 0, "frame": "native pixels", "size": 64}
    return {
        "source": make_node("CoZSamplePicture", picture="astronaut.png"),
        "model": make_node("UpscaleModelLoader", model_name="coz_lite_x4.safetensors"),
        "loop": make_node("CoZChainLoop", **loop | inputs),
        "scales": make_node("PreviewImage", images=["loop", 1]),
    }


def kept_prompt(**inputs):
    prompt = chain_prompt(**inputs)
    links = {name: ["loop", k] for k, name in enumerate(("image", "scales", "prompts", "chain"))}
    prompt["scales"] = make_node("TestKeep", **links)
    return prompt


def as_full_image(prompt, **inputs):
    """The prompt with Full-Image SR in the place of its loop, its image previewed or kept."""
    shared = ("image", "backbone", "prompting", "prompt", "seed", "color_fix")
    loop = prompt["loop"]["inputs"]
    kept = {key: value for key, value in loop.items() if key.partition(".")[0] in shared}
    prompt["loop"] = make_node("CoZFullImage", **kept | TILED | inputs)
    name = {"PreviewImage": "images", "TestKeep": "image"}[prompt["scales"]["class_type"]]
    prompt["scales"]["inputs"] = {name: ["loop", 0]}
    return prompt


def steps_run(executed, kind="sr"):
    """Numbers of the steps whose child of that kind is among the executed nodes."""
    names = [node.rpartition(".")[2] for node in executed]
    return [int(name.rpartition("_")[2]) for name in names if name.startswith(f"coz_{kind}_")]


def preview_scales(prompt, loop):
    """Adds a Preview Image of all frames of a Chain Loop."""
    prompt["99"] = make_node("PreviewImage", images=[loop, 1])


def fetch_picture(server, file):
    """A picture that a node shows or saves, (H, W, 3) of 8 bits."""
    return np.asarray(Image.open(io.BytesIO(ServerClient(server).download(file))))


def pictures(server, run, prompt):
    """What the prompt's Preview Images show, in the order of their ids."""
    previews = [key for key, node in prompt.items() if node["class_type"] == "PreviewImage"]
    files = [file for key in sorted(previews, key=int) for file in run.outputs[key]["images"]]
    return [fetch_picture(server, file) for file in files]
