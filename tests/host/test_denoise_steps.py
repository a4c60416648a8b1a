"""A denoise for each step of Chain Loop and each pass of Full-Image SR."""

import json
from dataclasses import replace

import pytest
import torch

from coz.detail.adaptive import compute_detail_factor, score_complexity
from coz.resample import crop, resize

from .prompts import as_full_image, kept_prompt, make_node, steps_run


@pytest.fixture
def zoom(host, keep, own_prompt):
    """Runs a Chain Loop with "any checkpoint" on 32 pixels and keeps its chain; ``zoom.told`` is said."""

    def run(denoise_steps=None, **inputs):
        chosen = {"control_net": None, "denoise_steps": denoise_steps} | inputs.pop("backbone", {})
        run.ran = steps_run(host.run(own_prompt(size=32, backbone=chosen, **inputs), "scales"))
        run.told = host.told
        return keep[-1]["chain"]

    return run


@pytest.mark.parametrize("typed", ["0.5, 0.3", "0.5\n0.3"])
def test_each_step_has_its_own_and_the_last_repeats(zoom, typed):
    chain = zoom(typed, steps=3)
    assert chain.denoises == (0.5, 0.3, 0.3)
    assert json.loads(chain.to_json())["denoises"] == [0.5, 0.3, 0.3]
    assert torch.equal(chain.frames[2], zoom(steps=1, backbone={"denoise": 0.5}).frames[2])
    second = zoom(steps=2, backbone={"denoise": 0.3})
    assert not torch.equal(chain.frames[3], second.frames[3])  # another first step


def test_blank_is_the_field(zoom):
    assert zoom("", steps=2).denoises == (0.6, 0.6)
    zoom("0.6, 0.6", steps=2)
    assert zoom.ran == []


def test_an_edited_value_runs_its_step_and_the_later_ones(zoom):
    zoom("0.5, 0.4, 0.3", steps=3)
    zoom("0.5, 0.2, 0.3", steps=3)
    assert zoom.ran == [2, 3]


def test_more_values_than_steps_are_noticed(zoom):
    told = "denoise_steps has 3 values, but steps is 1: the extra values are not used"
    assert zoom("0.5, 0.4, 0.3", steps=1).denoises == (0.5,)
    assert told in zoom.told
    assert told in zoom.told[-1].split("\n")


def test_adaptive_multiplies_it_and_the_record_has_the_product(zoom):
    chain = zoom("0.5, 0.4", steps=2, backbone={"adaptive": True})
    factors = []
    for typed, found, frame, window in zip(
        (0.5, 0.4), chain.denoises, chain.frames[1:], chain.windows[1:], strict=False
    ):
        view = resize(crop(frame, window), 32, 32).clamp(0, 1)
        factors.append(compute_detail_factor(score_complexity(view)[0]))
        assert found == pytest.approx(typed * factors[-1], rel=1e-5)
    assert factors != [1, 1]
    alone = zoom(f"{chain.denoises[0]}, {chain.denoises[1]}", steps=2)
    assert torch.equal(alone.frames[2], chain.frames[2])
    assert torch.equal(alone.frames[3], chain.frames[3])


def test_a_text_is_refused_before_the_work(zoom):
    with pytest.raises(RuntimeError, match=r'numbers from 0 to 1, .* but value 2 is "strong"'):
        zoom("0.5, strong", steps=1)


def test_kept_steps_keep_theirs(zoom, give, own_prompt, executor, keep):
    first = zoom("0.5, 0.4", steps=2)

    def go_on(chain):
        give("TestChain", "COZ_CHAIN", chain)
        chosen = {"control_net": None, "denoise_steps": "0.1, 0.2, 0.3"}
        inputs = {"size": 32, "steps": 3, "chain": ["chain", 0], "from_step": 1}
        prompt = own_prompt(backbone=chosen, **inputs)
        executor("CLASSIC").run(prompt | {"chain": make_node("TestChain")})
        return keep[-1]["chain"].denoises

    assert go_on(first) == (0.5, 0.2, 0.3)
    assert str(go_on(replace(first, denoises=()))) == "(nan, 0.2, 0.3)"


def test_a_chain_without_denoise_records_none(executor, keep):
    executor("CLASSIC").run(kept_prompt(steps=1))
    assert keep[0]["chain"].denoises == ()
    assert "denoises" not in json.loads(keep[0]["chain"].to_json())


def test_each_pass_of_full_image_sr_has_its_own(host, keep, own_prompt, before):
    import comfy.sample

    used = []
    before(comfy.sample, "sample", lambda *arguments, denoise, **_: used.append(denoise))

    def run(denoise_steps):
        used.clear()
        chosen = {"control_net": None, "denoise_steps": denoise_steps}
        prompt = as_full_image(own_prompt(backbone=chosen), passes=2, scale=1.5, tile=4096)
        prompt["source"] = make_node("EmptyImage", width=20, height=16, batch_size=1, color=9)
        host.run(prompt)
        return used

    assert run("0.5, 0.4, 0.3") == [0.5, 0.4]
    assert "denoise_steps has 3 values, but passes is 2: the extra values are not used" in host.told
    assert run("0.5, 0.3") == [0.3]  # the first pass is kept
