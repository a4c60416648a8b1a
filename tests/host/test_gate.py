"""What Chain Loop measures after each step, and the end of a chain by it."""

import json
import time
from math import inf

import pytest
import requests
import torch

from coz.fidelity.back_projection import measure_agreement
from coz.fidelity.invented import measure_invented_energy
from coz.resample import crop, resize
from tools.host.client import run_prompt
from tools.host.server import serve

from .executor import CACHES
from .prompts import chain_prompt, kept_prompt, make_node, steps_run

MEASURED = [30.3, 29.4, 30.1, 30.1]  # dB, of the prompt below
LIMIT = 29.9


@pytest.fixture
def weak_prompt(upscale_model):
    """Four steps by a network that was never trained: the second is the worst."""
    upscale_model(4)

    def prompt(**inputs):
        made = kept_prompt(step_prompts="a\nb\nc\nd", **inputs)
        made["model"]["inputs"]["model_name"] = "tiny_x4.safetensors"
        return made

    return prompt


@pytest.fixture
def upscaled(node, before):
    """Grows by each step that really runs: the host announces those too that it then blocks."""
    ran = []
    before(node("CoZUpscaleStep"), "execute", lambda *args, **kwargs: ran.append(1))
    return ran


def test_each_step_is_measured_shown_and_recorded(host, keep, weak_prompt):
    host.run(weak_prompt())
    chain = keep[0]["chain"]
    for i in range(4):
        window = crop(chain.frames[i + 1], chain.windows[i + 1])
        view = resize(window, 64, 64).clamp(0, 1)
        assert chain.agreements[i] == round(measure_agreement(chain.frames[i + 2], window), 1)
        assert chain.invented[i] == round(measure_invented_energy(chain.frames[i + 2], view), 4)
    assert chain.agreements == pytest.approx(MEASURED, abs=0.05)
    record = json.loads(host.ui("coz_collect")["coz_chain"][0])
    assert record["agreements"] == list(chain.agreements)
    assert record["invented"] == list(chain.invented)
    lines = host.told
    each = [
        "4x: 16 x 16 real pixels, is close to its input (30.3 dB)",
        "16x: 4 x 4 real pixels, departs from its invented input (29.4 dB)",
        "64x: 1 x 1 real pixel, is close to its invented input (30.1 dB)",
        "256x: less than one real pixel, is close to its invented input (30.1 dB)",
    ]
    assert [line for line in lines if line.startswith("step ")] == [
        "step 1 of 4: super-resolving\na",
        *(
            f"step {i} of 4: super-resolving\n{text}\n{before}"
            for i, text, before in zip((2, 3, 4), "bcd", each, strict=False)
        ),
    ]
    depth = "4 steps, 256x: the deepest frame holds less than one real pixel, the rest is invented"
    assert lines[-1].split("\n") == [depth, *each, *"abcd"]


@pytest.mark.parametrize("cache", CACHES)
def test_a_chain_ends_after_a_step_that_agrees_too_little(
    executor, keep, weak_prompt, upscaled, cache
):
    host = executor(cache)
    again = cache == "NONE"  # it keeps nothing between runs
    expected = 2
    host.run(weak_prompt(stop_below=LIMIT))
    assert len(upscaled) == expected
    assert host.told[-1] == (
        "2 steps, 16x: the deepest frame holds 4 x 4 real pixels, the rest is invented\n"
        "stopped after step 2 of 4: its agreement with its input is 29.4 dB, below stop_below (29.9 dB)\n"
        "4x: 16 x 16 real pixels, is close to its input (30.3 dB)\n"
        "16x: 4 x 4 real pixels, departs from its invented input (29.4 dB)\n"
        "a\nb"
    )
    assert len(host.ui("coz_collect")["images"]) == 3
    shown = [d["node"] for event, d in host.server.sent if event == "executed"]
    assert not [name for name in shown if name.endswith(("_3", "_4"))]

    host.run(weak_prompt(stop_below=29.0))
    expected += 4 if again else 2
    assert len(upscaled) == expected
    assert "stopped" not in host.told[-1]
    for limit in (LIMIT, 20.0, LIMIT, 0.0):
        executed = host.run(weak_prompt(stop_below=limit))
        if again:
            expected += 2 if limit == LIMIT else 4
        else:
            ran = {name.rpartition(".")[2] for name in executed}
            assert ran <= {"loop", "coz_collect", "scales"}
        assert len(upscaled) == expected
    host.run(weak_prompt(stop_below=LIMIT, steps=5))
    assert len(upscaled) == expected + (2 if again else 0)

    stopped, whole = keep[0], keep[1]
    assert stopped["scales"].shape[0] == 3
    assert torch.equal(stopped["scales"], whole["scales"][:3])
    assert torch.equal(stopped["image"], whole["scales"][2:3])
    assert stopped["prompts"] == "a\nb"
    ended, chain = stopped["chain"], whole["chain"]
    assert ended.windows == chain.windows[:3]
    assert ended.seeds == chain.seeds[:2]
    assert ended.agreements == chain.agreements[:2]
    assert ended.to_json() == keep[-1]["chain"].to_json()


@pytest.mark.parametrize(
    ("inputs", "steps"),
    [
        pytest.param({"stop_below": 100.0}, 1, id="after the first step"),
        pytest.param({"stop_below": 100.0, "steps": 1}, 1, id="one step is never too many"),
        pytest.param({"stop_below": LIMIT, "steps": 2}, 2, id="the last step"),
        pytest.param({"stop_below": 31.2, "mask": ["mask", 0]}, 3, id="a mask"),
    ],
)
@pytest.mark.parametrize("cache", ["CLASSIC", "NONE"])
def test_where_a_chain_ends(executor, keep, weak_prompt, upscaled, cache, inputs, steps):
    prompt = weak_prompt(**inputs)
    prompt["mask"] = make_node("SolidMask", value=1.0, width=64, height=64)
    host = executor(cache)
    host.run(prompt)
    assert len(upscaled) == keep[0]["chain"].steps == steps
    assert ("stopped after" in host.told[-1]) == (steps < inputs.get("steps", 4))


@pytest.mark.parametrize("cache", CACHES)
def test_each_chain_of_a_list_ends_by_itself(executor, keep, weak_prompt, upscaled, cache):
    prompt = weak_prompt(stop_below=LIMIT, image=("list", 0), steps=3)
    prompt["black"] = make_node("EmptyImage", width=96, height=96, batch_size=1, color=0)
    both = {"images.image0": ["source", 0], "images.image1": ["black", 0]}
    prompt["both"] = make_node("BatchImagesNode", **both)
    prompt["list"] = make_node("RebatchImages", images=["both", 0], batch_size=1)
    executor(cache).run(prompt)
    assert [values["chain"].steps for values in keep] == [2, 3]
    assert len(upscaled) == 5


def test_consistency_corrects_a_step_that_is_kept(host, keep, weak_prompt, upscaled):
    host.run(weak_prompt(steps=2))
    host.run(weak_prompt(steps=2, consistency=0.5))
    assert len(upscaled) == 3  # the first is the same, and only corrected
    assert steps_run(host.run(weak_prompt(steps=3, consistency=0.5))) == [3]
    before, after = keep[0]["chain"], keep[1]["chain"]
    assert after.agreements[0] > before.agreements[0] + 5


def test_full_consistency_ends_no_chain(executor, keep, weak_prompt):
    executor("CLASSIC").run(weak_prompt(consistency=1.0, stop_below=45.0, color_fix="none"))
    assert keep[0]["chain"].steps == 4


@pytest.mark.parametrize(
    ("agreement", "stop_below", "ends"),
    [
        (29.94, 30.0, True),
        pytest.param(29.96, 30.0, False, id="it is told as 30.0 dB"),
        (98.9, 100.0, True),
        pytest.param(inf, 100.0, False, id="more than over 99 dB cannot be asked for"),
        (5.0, 0.0, False),
        (-1.0, 0.0, False),
    ],
)
def test_what_is_told_decides(node, agreement, stop_below, ends):
    (image,) = node("CoZChainGate").execute("image", agreement, stop_below).args
    assert (image != "image") == ends


def server_prompt(**inputs):
    """With a Preview Image that makes the host's default cache forget the loop's children."""
    prompt = chain_prompt(center_x=0.49, **inputs)
    prompt["input"] = make_node("PreviewImage", images=["source", 0])
    return prompt


def test_a_real_server_runs_only_what_is_new(server):
    def run(**inputs):
        done = run_prompt(server, server_prompt(**inputs))
        (shown,) = (out for node, out in done.outputs.items() if node.endswith("coz_collect"))
        return steps_run(done.executed), len(shown["images"])

    assert run(steps=3, stop_below=100.0) == ([1], 2)
    assert run(steps=4, stop_below=100.0) == ([], 2)
    assert run(steps=3, stop_below=10.0) == ([2, 3], 4)
    assert run(steps=3, stop_below=100.0) == ([], 2)
    assert run(steps=4) == ([4], 5)
    assert run(steps=2, consistency=1.0)[0] == [2]  # step 1 is corrected, not run again


def test_a_cache_that_the_host_empties_is_empty(server):
    prompt = server_prompt(center_y=0.2)
    assert steps_run(run_prompt(server, prompt).executed) == [1, 2, 3, 4]
    requests.post(f"{server}/free", json={"unload_models": True})
    assert steps_run(run_prompt(server, prompt).executed) == []
    requests.post(f"{server}/free", json={"free_memory": True})
    time.sleep(1)  # the host's own thread empties its caches when it wakes
    assert steps_run(run_prompt(server, prompt).executed) == [1, 2, 3, 4]


@pytest.mark.long
def test_a_server_that_keeps_nothing_runs_each_step_once():
    prompt = chain_prompt(steps=4)
    with serve(arguments=["--cache-none"]) as url:
        whole = run_prompt(url, prompt)
        prompt["loop"]["inputs"]["stop_below"] = 100.0
        stopped = run_prompt(url, prompt)
    assert steps_run(whole.executed) == [1, 2, 3, 4]
    shown = {name.rpartition(".")[2] for name in stopped.outputs}
    assert shown == {"coz_check_1", "coz_collect", "scales"}
    assert len(stopped.outputs["loop.0.0.coz_collect"]["images"]) == 2
