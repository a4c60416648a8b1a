"""Chain Loop in the host's real executor, in this process, with each of its caches."""

import asyncio
import json
import math
import re

import pytest
import torch

from coz.chain.zoom_chain import derive_step_seed
from tests.conftest import DATA
from tests.support.images import noise

from .executor import CACHES
from .prompts import chain_prompt, kept_prompt, make_node, steps_run


@pytest.fixture
def make_source(node, give):
    """Registers TestSource: the sample picture, changed as the test says."""
    sample = node("CoZSamplePicture").execute("astronaut.png")[0]
    return lambda change: give("TestSource", "IMAGE", change(sample))


def sourced(prompt):
    """The prompt with TestSource for its picture."""
    prompt["source"] = make_node("TestSource")
    return prompt


@pytest.mark.parametrize("cache", CACHES[:3])
def test_a_longer_chain_runs_only_its_new_step(executor, cache):
    host = executor(cache)
    assert steps_run(host.run(chain_prompt(steps=4))) == [1, 2, 3, 4]
    assert steps_run(host.run(chain_prompt(steps=5))) == [5]
    assert steps_run(host.run(chain_prompt(steps=3))) == []
    assert host.run(chain_prompt(steps=3)) == []


@pytest.mark.parametrize("cache", CACHES[:3])
def test_texts_and_seeds_that_no_step_reads_run_no_step(executor, cache):
    host = executor(cache)
    host.run(chain_prompt())
    assert steps_run(host.run(chain_prompt(prompt="hair", step_prompts="\nskin", seed=5))) == []
    assert steps_run(host.run(chain_prompt(center_x=0.31))) == [1, 2, 3, 4]


@pytest.mark.parametrize("cache", CACHES)
def test_outputs(executor, keep, cache):
    executor(cache).run(kept_prompt(step_prompts="a\n-", prompt="b", steps=3, seed=9))
    (values,) = keep
    scales, chain = values["scales"], values["chain"]
    assert scales.shape == (4, 64, 64, 3)
    assert torch.equal(values["image"], scales[-1:])
    assert values["prompts"] == "a\n-\nb"
    assert chain.prompts == ("a", "", "b")
    assert chain.models == ("coz_lite_x4.safetensors",)
    assert chain.seeds == tuple(derive_step_seed(9, i) for i in (1, 2, 3))
    assert chain.frames[0].shape == (1, 3, 512, 512)
    assert torch.equal(torch.cat(chain.frames[1:]), scales.movedim(-1, 1))
    x, y, width, height = (int(v) for v in chain.windows[0])
    assert (width, height) == (64, 64)
    assert torch.equal(chain.frames[1], chain.frames[0][..., y : y + 64, x : x + 64])


def test_invisible_characters_are_no_text(executor, keep):
    inputs = {"step_prompts": "\ufeff-\n\u200b\nx\u2060", "prompt": "\u200bb", "steps": 3}
    executor("CLASSIC").run(kept_prompt(**inputs))
    assert keep[0]["chain"].prompts == ("", "b", "x")


def test_a_mask_is_the_target(host, keep, node):
    prompt = kept_prompt(steps=2, mask=["mask", 0])
    prompt["mask"] = make_node("SolidMask", value=1.0, width=100, height=50)
    host.run(prompt)
    host.run(kept_prompt(steps=2, center_x=0.5, center_y=0.5))
    assert torch.equal(keep[0]["scales"], keep[1]["scales"])


@pytest.mark.parametrize("cache", CACHES[:3])
def test_the_mask_of_an_opaque_picture_is_none(executor, keep, monkeypatch, cache):
    monkeypatch.setattr("folder_paths.input_directory", str(DATA))
    place = {"steps": 2, "size": 16, "center_x": 0.1, "center_y": 0.1, "scale": 2.0}
    prompt = kept_prompt(**place)
    prompt["source"] = make_node("LoadImage", image="opaque.gif")
    host = executor(cache)
    host.run(prompt)
    prompt["loop"]["inputs"]["mask"] = ["source", 1]
    assert set(host.run(prompt)) == {"loop", "loop.0.0.coz_collect", "scales"}
    typed, masked = keep
    assert torch.equal(masked["scales"], typed["scales"])
    assert masked["chain"].to_json() == typed["chain"].to_json()
    assert masked["chain"].target == (0.1, 0.1)
    node, text = host.notices[-1]
    assert node == "loop"
    assert text.split("\n")[-1].startswith("mask is empty")


@pytest.mark.parametrize("cache", CACHES)
def test_a_list_of_images_gives_each_its_own_chain(executor, keep, make_source, cache):
    make_source(lambda _: noise(3, 70, 80, 3))
    prompt = sourced(kept_prompt(steps=2, image=("list", 0)))
    prompt["list"] = make_node("RebatchImages", images=["source", 0], batch_size=1)
    host = executor(cache)
    host.run(prompt)
    if cache != "NONE":
        assert host.run(prompt) == []
    together = keep[:3]
    for i in range(3):
        single = sourced(kept_prompt(steps=2, image=("one", 0)))
        single["one"] = make_node("ImageFromBatch", image=["source", 0], batch_index=i, length=1)
        host.run(single)
        assert torch.equal(keep[-1]["scales"], together[i]["scales"])
        assert keep[-1]["chain"].to_json() == together[i]["chain"].to_json()


def test_a_batch_names_the_way_out(executor):
    prompt = chain_prompt()
    prompt["source"] = make_node("EmptyImage", width=64, height=64, batch_size=3, color=0)
    with pytest.raises(RuntimeError, match=r"batch of 3 images.*Rebatch Images \(batch_size 1\)"):
        executor("CLASSIC").run(prompt)


def test_every_finished_step_and_the_collector_show_on_the_loop(host):
    host.run(chain_prompt(steps=3))
    shown = [
        (data["node"].rpartition(".")[2], len(data["output"]["images"]))
        for event, data in host.server.sent
        if event == "executed" and data["display_node"] == "loop"
    ]
    assert shown == [("coz_check_1", 1), ("coz_check_2", 1), ("coz_check_3", 1), ("coz_collect", 4)]
    lines = host.notices
    assert lines[:2] == [("loop", "reading the image"), ("loop", "step 1 of 3: super-resolving")]
    depth = "3 steps, 64x: the deepest frame holds .*, the rest is invented"
    each = (rf"\n{x}x: .* real pixels?, .* its (invented )?input \(.* dB\)" for x in (4, 16, 64))
    assert re.fullmatch(depth + "".join(each), lines[-1][1])
    shown = [text for _, text in lines if text.startswith("step ")]
    assert [text.split(":")[0] for text in shown] == [f"step {i} of 3" for i in (1, 2, 3)]
    assert json.loads(host.ui("coz_collect")["coz_chain"][0])["steps"] == 3


def test_steps_show_in_order_while_the_chain_runs(host):
    order = [name.rpartition(".")[2] for name in host.run(chain_prompt(steps=2))]
    assert order.index("coz_check_1") < order.index("coz_sr_2")


def test_provider_keeps_only_what_fits(nodes_of):
    from comfy_api.latest import Caching

    cache_module = nodes_of("host.cache")
    cache = cache_module.ExpansionCache()
    size = cache_module.MAX_CACHE_BYTES // 3 - cache_module.ENTRY_BYTES
    one_third = torch.empty(size, dtype=torch.uint8)
    half = len(one_third) // 2
    conditioning = [[[one_third[:half], {"pooled_output": one_third[half:]}]]]

    def context(key):
        return Caching.CacheContext(f"5.0.0.coz_{key}", "CoZColorFix", key)

    async def scenario():
        for key in "ab":
            await cache.on_store(context(key), Caching.CacheValue([[one_third]]))
        await cache.on_store(context("c"), Caching.CacheValue([conditioning]))
        assert (await cache.on_lookup(context("a"))).outputs == [[one_third]]
        await cache.on_store(context("d"), Caching.CacheValue([[one_third]]))
        await cache.on_store(context("d"), Caching.CacheValue([[one_third]]))
        return [key for key in "abcd" if await cache.on_lookup(context(key))]

    assert asyncio.run(scenario()) == ["a", "c", "d"]
    assert cache.size == 3 * (one_third.nbytes + cache_module.ENTRY_BYTES)
    assert cache.should_cache(context("sr_1"))
    assert not cache.should_cache(Caching.CacheContext("5", "CoZColorFix", "x"))
    assert not cache.should_cache(Caching.CacheContext("coz_mine", "UpscaleModelLoader", "x"))
    assert not cache.should_cache(Caching.CacheContext("5.0.0.coz_collect", "CoZChainCollect", "x"))


def test_provider_keeps_the_steps_of_recent_prompts_only(nodes_of):
    from comfy_api.latest import Caching

    cache_module = nodes_of("host.cache")
    cache = cache_module.ExpansionCache()

    def context(key):
        return Caching.CacheContext(f"5.0.0.coz_{key}", "CoZColorFix", str(key))

    async def scenario():
        for prompt in range(cache_module.MAX_KEPT_RUNS + 4):
            cache.register()
            cache.register()  # another loop of the prompt
            await cache.on_lookup(context(2))  # which is used again and again
            for part in ("a", "b"):
                await cache.on_store(context(f"{prompt}{part}"), Caching.CacheValue([[part]]))
            if prompt == 2:
                await cache.on_store(context(2), Caching.CacheValue([["used"]]))
            cache.on_prompt_end("p")

    asyncio.run(scenario())
    kept = range(4, cache_module.MAX_KEPT_RUNS + 4)
    own = [f"{prompt}{part}" for prompt in kept for part in ("a", "b")]
    assert sorted(cache.values) == sorted(["2", *own])
    assert cache.last_used.keys() == cache.values.keys()
    assert cache.size == len(cache.values) * cache_module.ENTRY_BYTES


def test_provider_stays_within_its_limit_while_a_chain_runs(executor, nodes_of, monkeypatch):
    one_frame = 64 * 64 * 3 * 4
    cache = nodes_of("host.cache").CACHE
    monkeypatch.setattr(nodes_of("host.cache"), "MAX_CACHE_BYTES", 5 * one_frame)
    host = executor("RAM_PRESSURE")
    sizes = []
    send = host.server.send_sync
    host.server.send_sync = lambda *event: (sizes.append(cache.size), send(*event))
    host.run(chain_prompt(steps=6))
    assert 3 * one_frame < max(sizes) <= 5 * one_frame


@pytest.mark.parametrize("stopped", [False, True])
def test_the_host_knows_of_the_provider_only_while_a_loop_runs(executor, mm, stopped):
    """For any provider the host works out a key of every node, from all that stands before it."""
    from comfy_execution.cache_provider import _get_cache_providers

    def names():
        return [type(provider).__name__ for provider in _get_cache_providers()]

    host = executor("RAM_PRESSURE")
    known = {}
    send = host.server.send_sync

    def record(event, data, *rest):
        if event == "executing" and data["node"]:
            known[data["node"].rpartition(".")[2]] = names()
            if stopped and data["node"].endswith("coz_sr_2"):
                mm.interrupt_current_processing()
        send(event, data, *rest)

    host.server.send_sync = record
    host.run(chain_prompt(steps=3))
    assert known["source"] == known["loop"] == []
    assert known["coz_sr_2"] == ["ExpansionCache"]
    assert ("coz_sr_3" in known) == (not stopped)
    assert names() == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        pytest.param(lambda i: i * math.nan, "image holds 786432 values that are NaN", id="NaN"),
        pytest.param(lambda i: i / 0, "image holds .* values that are NaN or infinite", id="Inf"),
        pytest.param(lambda i: i[:0], "at least one pixel, got shape", id="empty"),
    ],
)
def test_bad_pictures_are_refused_before_a_step_runs(host, make_source, bad, message):
    make_source(bad)
    with pytest.raises(RuntimeError, match=message):
        host.run(sourced(chain_prompt()))
    assert not steps_run([data["node"] for event, data in host.server.sent if event == "executing"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda i: torch.cat([i, i[..., :1] * 0.5], -1), id="RGBA"),
        pytest.param(lambda i: torch.cat([i, i[..., :2]], -1), id="5 channels"),
        pytest.param(lambda i: i.double(), id="float64"),
        pytest.param(lambda i: torch.where(i == 1, 1.5, torch.where(i == 0, -2, i)), id="range"),
        pytest.param(lambda i: i.movedim(1, 2).contiguous().movedim(1, 2), id="not contiguous"),
        pytest.param(lambda i: i.clone().requires_grad_(), id="requires grad"),
    ],
)
def test_other_pictures_give_the_chain_of_their_colours(host, keep, make_source, change):
    make_source(change)
    host.run(kept_prompt(steps=1))
    host.run(sourced(kept_prompt(steps=1)))
    assert torch.equal(keep[1]["scales"], keep[0]["scales"])


@pytest.mark.parametrize(
    ("name", "kind", "value", "limits"),
    [("center_x", "Float", 1.25, "a fraction of the image, 0 to 1")]
    + [("steps", "Int", value, "1 to 16") for value in (0, 17)]
    + [("scale", "Float", value, "1.5 to 8") for value in (1.0, 8.5)]
    + [("consistency", "Float", value, "0 .*") for value in (-0.5, 100.5, float("nan"))]
    + [("stop_below", "Float", value, "0 .*") for value in (-0.5, 100.5, float("nan"))]
    + [("restraint", "Float", value, "0 to 1") for value in (-0.1, 1.01, float("nan"))]
    + [("from_step", "Int", value, "0 to 16") for value in (-1, 17)],
)
def test_linked_numbers_are_checked_too(executor, name, kind, value, limits):
    prompt = chain_prompt(**{name: ["number", 0]})
    prompt["number"] = make_node(f"Primitive{kind}", value=value)
    with pytest.raises(RuntimeError, match=f"{name} must be {limits}, got {value:g}"):
        executor("CLASSIC").run(prompt)


def test_fp16_intermediates_cost_their_rounding_alone(executor, keep, nodes_of, monkeypatch):
    from comfy.cli_args import args

    executor("CLASSIC").run(kept_prompt(steps=1))
    nodes_of("host.cache").CACHE.clear()
    monkeypatch.setattr(args, "fp16_intermediates", True)
    executor("CLASSIC").run(kept_prompt(steps=1))
    whole, half = (values["chain"].frames[2] for values in keep)
    assert half.dtype == torch.float32
    assert 0 < (half - whole).abs().max() <= 2**-11  # float16 below 1


def test_status_is_text_and_never_html(host):
    """Its receiver parses it as HTML: there "<" is itself where no letter follows."""
    host.run(chain_prompt(steps=1, step_prompts="<img src=x onerror=alert(1)> & half a \ud83d"))
    _, text = host.notices[-1]
    assert text.split("\n")[2:] == ["<\u200bimg src=x onerror=alert(1)> & half a ?"]


def test_status_goes_to_the_page_that_queued_the_prompt(host):
    to = []
    host.server.send_progress_text = lambda text, node, sid=None: to.append(sid)
    for place, extra in ((0.31, {"client_id": "mine"}), (0.32, {})):
        host.execute(chain_prompt(steps=1, center_x=place), "p", extra, ["scales"])
    assert set(to) == {"mine"}
