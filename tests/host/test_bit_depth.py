"""A 16-bit file through the nodes: docs/scientific-pictures.md says what is kept."""

import numpy as np
import pytest
import torch
from PIL import Image

from .prompts import make_node

SIDE = 128
DARKEST, STEP = 20000, 40  # the ramp covers 128 of 65536 levels: 20 of 256
LEVELS_OF_8_BITS = 20
CENTER = {"center_x": 0.5, "center_y": 0.5}
BICUBIC = {"resampling": "bicubic"}
VIEWS = {"crop": ["crop", 1], "zoomed": ["crop", 0], **BICUBIC}
NODES = {
    "first": make_node("CoZFitImage", image=["load", 0], frame="native pixels", size=128, **CENTER),
    "crop": make_node("CoZCropCenterZoom", image=["first", 0], scale=4.0, **BICUBIC, **CENTER),
    "model": make_node("UpscaleModelLoader", model_name="coz_lite_x4.safetensors"),
    "step": make_node("CoZUpscaleStep", upscale_model=["model", 0], **VIEWS),
}
LINKS = {"first": ["first", 0], "crop": ["crop", 1], "zoomed": ["crop", 0], "step": ["step", 0]}


@pytest.fixture
def ramp(input_folder):
    """A 16-bit grey ramp from left to right, as the loader's input: (H, W) in [0, 1]."""
    picture = np.tile((DARKEST + STEP * np.arange(SIDE)).astype(np.uint16), (SIDE, 1))
    Image.fromarray(picture).save(input_folder / "ramp.png")
    return torch.from_numpy(picture.astype(np.float32) / 65535)


def count_levels(image):
    return len((image[..., 0] * 65535).round().unique())


def load(prompt):
    return {"load": make_node("LoadImage", image="ramp.png")} | prompt


def test_a_16_bit_ramp_keeps_its_levels_through_the_nodes(ramp, executor, keeper):
    kept = keeper("TestDepth", dict.fromkeys(LINKS, "IMAGE"))
    executor("CLASSIC").run(load(NODES) | {"keep": make_node("TestDepth", **LINKS)}, "keep")
    (images,) = kept
    assert (images["first"][0, ..., 0] - ramp).abs().max() < 0.5 / 65535
    assert count_levels(images["first"]) == SIDE
    assert count_levels(images["crop"]) == SIDE / 4
    for name in ("zoomed", "step"):
        assert count_levels(images[name]) > 4 * LEVELS_OF_8_BITS
