"""Cards that are too small, get lost or are two, in the host's real executor."""

from contextlib import contextmanager

import pytest
import torch

from tools.host.workflow import find_node

from .templates import PAPER, START, WHOLE, read_template

MB = 2**20
SMALL_CARD = 2 * 2**30


def crowded(on_card, free):
    """A card of 2 GB of which other programs leave so many megabytes."""
    templates = on_card(size=SMALL_CARD)
    templates.memory.take(SMALL_CARD - free * MB)
    templates.memory.restart_peak()
    return templates


@pytest.mark.parametrize(
    ("name", "free", "most"),
    [
        (PAPER, 1400, 200),  # ComfyUI keeps 1229 MB free, and the models have 386
        (START, 1200, 6),
        (WHOLE, 6, 6),
    ],
)
def test_a_small_card_gives_the_same_values(on_card, name, free, most):
    prompt = read_template(name)
    want = on_card().run(prompt)
    templates = crowded(on_card, free)
    templates.forget()
    rounding = 2e-6 if name == WHOLE else 0  # of a batch of tiles: smaller where memory is short
    assert torch.allclose(templates.run(prompt), want, rtol=0, atol=rounding)
    assert templates.memory.peak - (SMALL_CARD - free * MB) <= most * MB


def test_a_card_without_memory_says_what_to_do(on_card):
    templates = crowded(on_card, 2)
    prompt = read_template(START)
    with pytest.raises(
        RuntimeError,
        match=r"CARD out of memory\. Tried to allocate [\d,]+ bytes\. The card has 2,147,483,648 bytes, of "
        r"which [\d,]+ are free\nEven the smallest part of the image does not fit into memory: close other "
        r"programs that use the GPU, choose a smaller upscale model, or start ComfyUI with --cpu\n",
    ):
        templates.run(prompt)
    templates.memory.live -= SMALL_CARD - 2 * MB
    got = templates.run(prompt)
    templates.forget()
    assert torch.equal(got, on_card().run(prompt))


WAYS_OUT = {
    "comfy.sd.CLIP.generate": "The vision-language model did not fit into the GPU's memory: choose a smaller "
    "one, type the prompts in its place",
    "comfy.sd.CLIP.encode_from_tokens_scheduled": "The text encoders did not fit into the GPU's memory: choose "
    "a checkpoint without T5, or with T5 in fp8",
    "comfy.sample.sample_custom": "A view of this size did not fit into the GPU's memory: lower size or tile, "
    "choose a smaller model",
}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
@pytest.mark.parametrize("place", WAYS_OUT)
def test_memory_that_runs_out_says_what_to_do_and_is_freed(on_card, monkeypatch, place, error):
    def fail(*args, **kwargs):
        raise error("CARD: out of memory")

    templates = on_card()
    prompt = read_template(PAPER)
    monkeypatch.setattr(place, fail)
    with pytest.raises(RuntimeError) as caught:
        templates.run(prompt)
    assert str(caught.value).startswith(
        f"CARD: out of memory\n{WAYS_OUT[place]}, close other programs that use the GPU, or start ComfyUI "
        "with --novram, which is slower\nThis error means you ran out of memory"
    )
    assert templates.count()["live"] == 0


LOST = "CUDA error: unspecified launch failure"


@contextmanager
def lost(card, at):
    """The card fails in the operation of that number."""
    run, count = card._run_on_cpu, 0

    def fail(*args):
        nonlocal count
        count += 1
        if count == at:
            raise torch.AcceleratorError(LOST)
        return run(*args)

    card._run_on_cpu = fail
    try:
        yield
    finally:
        del card._run_on_cpu


@pytest.mark.parametrize(
    ("name", "at"),
    [(START, 100), (START, 500), (PAPER, 2000), pytest.param(WHOLE, 500, marks=pytest.mark.long)],
)
def test_a_lost_card_is_an_error_and_the_next_prompt_works(on_card, name, at):
    templates = on_card()
    prompt = read_template(name)
    with lost(templates.host.card, at), pytest.raises(RuntimeError, match=LOST):
        templates.run(prompt)
    got = templates.run(prompt)
    templates.forget()
    assert torch.equal(got, templates.run(prompt))


MOVED = {
    "model": ("SelectModelDevice", "CoZLoadSRLoRA", "model"),
    "VAE": ("SelectVAEDevice", "CoZLoadSRLoRA", "vae"),
    "text encoder": ("SelectCLIPDevice", "CoZChainLoop", "backbone.clip"),
    "VLM": ("SelectCLIPDevice", "CoZChainLoop", "prompting.vlm"),
}


@pytest.mark.since("0.30")
@pytest.mark.parametrize(
    "moved",
    [["model", "VLM"], *[pytest.param(each, marks=pytest.mark.long)
                         for each in (["VAE"], ["text encoder"], [*MOVED])]],
    ids=" and ".join,
)  # fmt: skip
def test_models_on_a_second_card_give_the_values_of_one(on_card, moved):
    prompt = read_template(PAPER)
    want = on_card().run(prompt)
    for each in moved:
        kind, reader, name = MOVED[each]
        inputs = prompt[find_node(prompt, reader)]["inputs"]
        source = {kind.removeprefix("Select").removesuffix("Device").lower(): inputs[name]}
        prompt[each] = {"class_type": kind, "inputs": source | {"device": "gpu:1"}}
        inputs[name] = [each, 0]
    templates = on_card(count=2)
    templates.forget()
    assert torch.equal(templates.run(prompt), want)
    first, second = templates.host.cards
    assert [loaded.device for loaded in templates.host._loaded].count(second.device) == len(moved)
    assert second.work.flops > 10**8
    assert (first.work.flops > 0) == (len(moved) < len(MOVED))
