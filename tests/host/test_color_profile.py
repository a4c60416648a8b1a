"""The colour profile of a picture's file, which the host does not apply, in the real executor."""

import json
import shutil

import pytest

from coz.chain.zoom_chain import ZoomChain
from tests.conftest import DATA

from .prompts import as_full_image, chain_prompt, kept_prompt, make_node, steps_run

NOTE = (
    "the image has the color profile Display P3 like, which ComfyUI does not apply: colors are read "
    "as sRGB. Convert the image to sRGB first"
)


@pytest.fixture(autouse=True)
def files(input_folder):
    for name in ("p3.png", "p3_true.png"):
        shutil.copyfile(DATA / name, input_folder / name)


def loaded(prompt, name, *between):
    """The prompt with a Load Image, and nodes of one link between it and the loop."""
    prompt["source"] = make_node("LoadImage", image=name)
    for k, (class_type, inputs) in enumerate(between):
        before = f"between{k - 1}" if k else "source"
        prompt[f"between{k}"] = make_node(class_type, **{"image": [before, 0]} | inputs)
        prompt["loop"]["inputs"]["image"] = [f"between{k}", 0]
    return prompt


def closing(host):
    return [text for node, text in host.notices if node == "loop"][-1].split("\n")


SMALLER = ("ImageScaleBy", {"upscale_method": "area", "scale_by": 0.5})
CROP = ("ImageCrop", {"width": 60, "height": 40, "x": 0, "y": 0})


@pytest.mark.parametrize("between", [(), (SMALLER, CROP)], ids=["direct", "two nodes between"])
def test_a_chain_tells_and_records_it(host, keep, between):
    host.run(loaded(kept_prompt(steps=2, size=32), "p3.png", *between))
    assert closing(host).count(NOTE) == 1
    chain = keep[-1]["chain"]
    assert chain.color_profile == "Display P3 like"
    assert json.loads(chain.to_json())["color_profile"] == "Display P3 like"
    assert ZoomChain.from_json(chain.to_json(), chain.frames).color_profile == "Display P3 like"
    assert steps_run(host.run(loaded(kept_prompt(steps=3, size=32), "p3.png", *between))) == [3]


def test_nothing_is_said_of_srgb_or_of_what_is_no_file(host, keep):
    plain = kept_prompt(steps=1, size=32)
    for prompt in (loaded(kept_prompt(steps=1, size=32), "p3_true.png"), plain):
        host.run(prompt)
        assert "color profile" not in "\n".join(closing(host))
        chain = keep[-1]["chain"]
        assert chain.color_profile == ""
        assert "color_profile" not in json.loads(chain.to_json())


BLEND = {"image1": ["source", 0], "image2": ["source", 0], "blend_mode": "normal"}
FORK = make_node("ImageBlend", blend_factor=0.5, **BLEND)
OTHER_COLORS = make_node("ImageInvert", image=["source", 0])


@pytest.mark.parametrize("node", [FORK, OTHER_COLORS], ids=["a fork", "other colours"])
def test_a_way_that_forks_or_may_change_colours_is_not_followed(executor, keep, node):
    prompt = loaded(kept_prompt(steps=1, size=32, image=("between", 0)), "p3.png")
    executor("CLASSIC").run(prompt | {"between": node})
    assert keep[-1]["chain"].color_profile == ""


def test_full_image_tells_it_to_the_end(host):
    host.run(as_full_image(loaded(chain_prompt(), "p3.png", CROP), scale=2.0, tile=64, overlap=8))
    assert closing(host).count(NOTE) == 1
