"""Chain Loop going on with a chain: of another loop, in the host's real executor."""

import re
from dataclasses import replace
from math import isnan

import pytest
import torch

from .prompts import kept_prompt, make_node, steps_run

PLACE = {"center_x": 0.02, "center_y": 0.6, "scale": 3.2, "step_prompts": "a\nb\nc", "seed": 9}


def resumed(first, **inputs):
    """The prompt of a loop that takes its chain from a loop with the inputs ``first``."""
    prompt = kept_prompt(**PLACE | {"steps": 4, "chain": ["first", 3]} | inputs)
    prompt["first"] = kept_prompt(**PLACE | first)["loop"]
    return prompt


def ran(executed, loop="loop"):
    return steps_run([name for name in executed if name.startswith(f"{loop}.")])


@pytest.mark.parametrize("cache", ["CLASSIC", "RAM_PRESSURE", "NONE"])
def test_going_on_equals_one_run_to_the_last_bit(executor, keep, cache):
    host = executor(cache)
    executed = host.run(resumed({"steps": 2}))
    # Where the host keeps nothing, it runs what feeds a loop a second time for its children.
    assert ran(executed, "first") == [1, 2] * (2 if cache == "NONE" else 1)
    assert ran(executed) == [3, 4]
    if cache != "NONE":
        assert steps_run(host.run(resumed({"steps": 2}))) == []
        assert steps_run(host.run(resumed({"steps": 2}, steps=5))) == [5]
    host.run(kept_prompt(**PLACE, steps=4))
    again, whole = keep[0], keep[-1]
    assert torch.equal(again["scales"], whole["scales"])
    assert torch.equal(again["image"], whole["image"])
    assert again["prompts"] == whole["prompts"]
    assert again["chain"].to_json() == whole["chain"].to_json()
    assert "Not used" not in "".join(host.told)


def test_a_branch_keeps_what_is_before_it(host, keep):
    branch = {"steps": 3, "from_step": 1, "color_fix": "none", "step_prompts": "x\ny\nz", "seed": 1}
    assert ran(host.run(resumed({"steps": 4}, **branch))) == [2, 3]
    host.run(kept_prompt(**PLACE, steps=4))
    prompt = kept_prompt(**PLACE | branch | {"chain": ["loop_2", 3]})
    host.run(prompt | {"loop_2": kept_prompt(**PLACE, steps=4)["loop"]})
    branched, whole, linked = keep
    assert torch.equal(branched["scales"][:2], whole["scales"][:2])
    assert not torch.equal(branched["scales"][2], whole["scales"][2])
    assert branched["prompts"] == "a\ny\nz"
    seeds = branched["chain"].seeds
    assert seeds[0] == whole["chain"].seeds[0]
    assert seeds[1] != whole["chain"].seeds[1]
    assert branched["chain"].windows == whole["chain"].windows[:4]
    assert linked["chain"].to_json() == branched["chain"].to_json()


@pytest.mark.parametrize(
    ("inputs", "steps"),
    [({"steps": 2}, 2), ({"steps": 4, "from_step": 0}, 4), ({"steps": 4, "from_step": 9}, 4)],
)
def test_steps_that_are_there_are_not_run(host, keep, inputs, steps):
    kept = min(3, inputs.get("from_step", 16), steps)
    assert ran(host.run(resumed({"steps": 3}, **inputs))) == list(range(kept + 1, steps + 1))
    assert keep[0]["chain"].steps == steps
    assert len(keep[0]["scales"]) == steps + 1


def test_widgets_that_say_something_else_are_named(host, keep):
    host.run(kept_prompt(**PLACE, steps=3))
    other = {"scale": 4.0, "center_x": 0.5, "size": 32, "frame": "whole picture", "steps": 3}
    host.run(resumed({"steps": 2}, **other))
    assert torch.equal(keep[0]["scales"], keep[1]["scales"])
    line = (
        "Not used, because the chain has its own: scale, center_x, frame, size. The chain zooms by 3.2 into "
        "0.0200, 0.6000 of its image, with frames of 64 x 64"
    )
    assert line in host.told
    shown = host.told[-1].split("\n")
    # 64 // 3.2 is 20: 3.2x each
    depth = "3 steps, 32.8x: the deepest frame holds 1.95 x 1.95 real pixels, the rest is invented"
    each = ("3.2x: 20 x 20", "10.2x: 6.25 x 6.25", "32.8x: 1.95 x 1.95")
    assert shown[0] == depth
    assert [text.split(",")[0] for text in shown[1:4]] == [f"{text} real pixels" for text in each]
    assert shown[4:] == ["a", "b", "c", line]


def test_another_picture_is_named(host, keep):
    prompt = resumed({"steps": 1, "image": ["other", 0]}, steps=2)
    prompt["other"] = make_node("CoZSamplePicture", picture="rocket.jpg")
    host.run(prompt)
    assert keep[0]["chain"].frames[0].shape[-2:] == (427, 640)
    assert "Not used, because the chain has its own: image." in host.told[-1]


def test_a_picture_is_compared_to_its_last_row(nodes_of):
    start = nodes_of("loop.start")
    image = torch.rand(1, 3, 2 * start.BAND_ROWS + 1, 8)
    other = image.clone()
    other[..., -1, 5] += 1 / 60000
    assert start.is_same(image, image.clone())
    assert not start.is_same(image, other)
    assert not start.is_same(image, image[..., : start.BAND_ROWS, :])


@pytest.mark.parametrize(
    ("value", "named"), [(1.0, "mask"), (1 / 63, "mask"), (1 / 65, "center_x"), (0.0, "center_x")]
)
def test_a_mask_is_not_used_with_a_chain(host, keep, value, named):
    prompt = resumed({"steps": 1}, steps=1, mask=["mask", 0], center_x=0.9)
    prompt["mask"] = make_node("SolidMask", value=value, width=64, height=64)
    host.run(prompt)
    assert f"Not used, because the chain has its own: {named}. The chain zooms" in host.told[-1]
    assert "mask is empty" not in "".join(host.told)
    assert keep[0]["chain"].target == (0.02, 0.6)


def test_texts_of_kept_steps_that_are_others_are_named(host, keep):
    host.run(resumed({"steps": 3, "step_prompts": "a\n-\nc"}, steps=4, step_prompts="\nb\nx\nd"))
    names = "line 2 of step_prompts, line 3 of step_prompts"
    assert f"Not used, because the chain has its own: {names}. The chain zooms" in host.told[-1]
    assert keep[0]["prompts"] == "a\n-\nc\nd"


@pytest.mark.parametrize(
    ("kept", "steps", "models"),
    [(0, 1, ["other"]), (1, 2, ["first", "other"]), (2, 2, ["first"])],
    ids=["none kept", "one kept", "all kept"],
)
def test_the_record_names_the_models_that_were_used(executor, keep, kept, steps, models):
    files = {"first": "coz_lite_x4.safetensors", "other": "coz_lite_x4_texture.safetensors"}
    prompt = resumed({"steps": 2}, steps=steps, from_step=kept, model=("other", 0))
    prompt["other"] = make_node("UpscaleModelLoader", model_name=files["other"])
    executor("CLASSIC").run(prompt)
    assert keep[0]["chain"].models == tuple(files[name] for name in models)


def test_figures_of_kept_steps_are_carried_on(host, keep):
    host.run(resumed({"steps": 3}, steps=4, from_step=2, consistency=1.0))
    host.run(kept_prompt(**PLACE, steps=3))
    branched, first = (values["chain"] for values in keep)
    assert len(branched.agreements) == len(branched.invented) == 4
    assert branched.agreements[:2] == first.agreements[:2]
    assert branched.invented[:2] == first.invented[:2]
    assert branched.agreements[2] != first.agreements[2]


@pytest.fixture
def unmeasured(define):
    """A loop that takes its chain from another, as an older record has it."""

    def forget(self, chain):
        return (replace(chain, agreements=(), invented=()),)

    def prompt(first, **inputs):
        made = resumed(first, **inputs)
        made["forget"] = make_node("TestForget", chain=["first", 3])
        made["loop"]["inputs"]["chain"] = ["forget", 0]
        return made

    define("TestForget", forget, {"chain": "COZ_CHAIN"}, ("COZ_CHAIN",))
    return prompt


def test_an_older_chain_has_figures_for_its_new_steps_only(host, keep, unmeasured):
    prompt = unmeasured({"steps": 2}, steps=3, stop_below=100.0)
    host.run(prompt)
    shown = host.told[-1].split("\n")
    # What an older record did not measure is not told; the real pixels are in every record.
    assert shown[1:3] == ["3.2x: 20 x 20 real pixels", "10.2x: 6.25 x 6.25 real pixels"]
    told = r"32.8x: 1.95 x 1.95 real pixels, [a-z ]+ its invented input \([\d.]+ dB\)"
    assert re.fullmatch(told, shown[3])
    assert host.run(prompt) == []
    assert [isnan(db) for db in keep[0]["chain"].agreements] == [True, True, False]
    host.run(unmeasured({"steps": 2}, steps=2))
    assert keep[-1]["chain"].agreements == keep[-1]["chain"].invented == ()
    assert "input" not in host.told[-1]


@pytest.mark.parametrize("cache", ["CLASSIC", "NONE"])
def test_a_kept_step_that_agrees_too_little_is_the_last(executor, keep, cache):
    host = executor(cache)
    executed = host.run(resumed({"steps": 2}, steps=4, stop_below=100.0))
    assert ran(executed) == []
    assert keep[0]["chain"].steps == 2
    assert "stopped after step 2 of 4: its agreement with its input is " in host.told[-1]
    executed = host.run(resumed({"steps": 2}, steps=2, stop_below=100.0))
    assert "stopped" not in host.told[-1]
