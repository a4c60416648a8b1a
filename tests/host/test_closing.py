"""The last lines of a run, in the ui output of the node that ran: the page shows them after it."""

import pytest
import torch

from .prompts import as_full_image, chain_prompt, make_node

MEMORY = "Out of memory: from here on the model enlarges at most"


def closing(host, node, key="coz_text"):
    """What the page gets last for a node, from the run or from the cache."""
    outputs = [
        data["output"]
        for event, data in host.server.sent
        if event == "executed" and data["display_node"] == node and data["output"]
    ]
    return outputs[-1][key]


def short_of_memory(upscale_model, image):
    if max(image.shape[1:3]) > 90:
        raise torch.OutOfMemoryError("injected")


@pytest.mark.parametrize("is_library", [False, True])
def test_a_chain_keeps_why_it_stopped(executor, is_library):
    host = executor("CLASSIC", is_library)
    host.run(chain_prompt(stop_below=99.0))
    (text,) = closing(host, "loop")
    first, second, third = text.split("\n")
    green = "rgb(165, 201, 58)"
    assert closing(host, "loop", "coz_dots") == [(third, green), (first, green)]
    assert first == "1 step, 4x: the deepest frame holds 16 x 16 real pixels, the rest is invented"
    assert second.startswith("stopped after step 1 of 4: its agreement with its input is ")
    ran = host.run(chain_prompt(stop_below=98.0))
    assert set(ran) == {"loop", "loop.0.0.coz_collect", "scales"}
    assert closing(host, "loop") == [text.replace("stop_below (99 dB)", "stop_below (98 dB)")]


def test_a_chain_keeps_the_notices_of_its_steps(host, upscale_node, before):
    host.run(chain_prompt(steps=1, size=256))
    assert MEMORY not in closing(host, "loop")[0]
    before(upscale_node, "execute", short_of_memory)
    prompt = chain_prompt(steps=2, size=256, scale=2.0)
    host.run(prompt)
    (text,) = closing(host, "loop")
    notice = text.split("\n")[-1]
    assert notice.startswith(MEMORY)
    assert text.count(MEMORY) == 1  # both steps said it
    prompt["loop"]["inputs"]["steps"] = 1
    assert "loop.0.0.coz_sr_1" not in host.run(prompt)  # the step comes from the cache
    assert closing(host, "loop")[0].split("\n")[-1] == notice


def test_a_list_of_images_keeps_a_text_for_each(host):
    prompt = chain_prompt(steps=1, image=("list", 0))
    prompt |= {
        "other": make_node("ImageInvert", image=["source", 0]),
        "both": make_node("ImageBatch", image1=["source", 0], image2=["other", 0]),
        "list": make_node("RebatchImages", images=["both", 0], batch_size=1),
    }
    host.run(prompt)
    together = closing(host, "loop")
    alone = []
    for image in ("source", "other"):
        prompt["loop"]["inputs"]["image"] = [image, 0]
        host.run(prompt)
        alone += closing(host, "loop")
    assert together == alone


def test_full_image_keeps_each_pass_and_its_notices(host):
    inputs = {"scale": 2.0, "passes": 2, "tile_prompts": "a\nb\nc"}
    prompt = as_full_image(chain_prompt(color_fix="none"), image=["frame", 0], **inputs)
    frame = {"frame": "native pixels", "size": 32, "center_x": 0.5, "center_y": 0.5}
    prompt["frame"] = make_node("CoZFitImage", **{"image": ["source", 0]} | frame)
    host.run(prompt)
    (text,) = closing(host, "loop")
    first, second, notice = text.split("\n")
    assert first.startswith(
        "pass 1: 1 tile. The result of 64 x 64 pixels shows 32 x 32 pixels of the image. "
    )
    assert second.startswith(
        "pass 2: 1 tile. The result of 128 x 128 pixels shows 32 x 32 pixels of the image. "
    )
    assert notice == "tile_prompts has 3 lines for 2 tiles: the extra lines are not used"
    prompt["loop"]["inputs"]["tile_prompts"] = "a\nb"
    assert "loop.0.0.coz_tiles_1" not in host.run(prompt)
    assert closing(host, "loop") == [f"{first}\n{second}"]
    prompt["loop"]["inputs"]["seed"] = 1  # an upscale model has none
    assert set(host.run(prompt)) == {"loop", "loop.0.0.coz_collect", "scales"}


def test_a_notice_goes_with_its_cause(host):
    place = {"scale": 4.0, "center_x": 0.5, "center_y": 0.5, "resampling": "bicubic"}
    prompt = {
        "source": make_node("CoZSamplePicture", picture="chelsea.png"),
        "mask": make_node("SolidMask", value=0, width=8, height=8),
        "zoom": make_node("CoZCropCenterZoom", image=["source", 0], mask=["mask", 0], **place),
        "scales": make_node("PreviewImage", images=["zoom", 0]),
    }
    host.run(prompt)
    (text,) = closing(host, "zoom")
    assert text.startswith("mask is empty")
    del prompt["zoom"]["inputs"]["mask"]
    host.run(prompt)
    assert closing(host, "zoom") == []


def test_each_item_of_a_list_is_told_once(host):
    fix = {"image": ["list", 0], "reference": ["source", 0], "method": "best", "levels": 5}
    prompt = {
        "source": make_node("CoZSamplePicture", picture="chelsea.png"),
        "both": make_node("ImageBatch", image1=["source", 0], image2=["source", 0]),
        "list": make_node("RebatchImages", images=["both", 0], batch_size=1),
        "fix": make_node("CoZColorFix", **fix),
        "scales": make_node("PreviewImage", images=["fix", 0]),
    }
    host.run(prompt)
    assert closing(host, "fix") == ["best: wavelet"] * 2
    assert host.notices == [("fix", "best: wavelet")] * 2
