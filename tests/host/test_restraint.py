"""One dial for consistency, color_fix and denoise."""

import re

import pytest
import torch

from tools.host import ROOT

from .prompts import as_full_image, kept_prompt, make_node


@pytest.fixture
def dial(define):
    """A prompt with a restraint connected to its loop."""
    values = {}
    define("TestDial", lambda self, number: (values[number],), {"number": "INT"}, ("FLOAT",))

    def connect(prompt, value):
        number = len(values)
        values[number] = value
        prompt["loop"]["inputs"]["restraint"] = ["dial", 0]
        return prompt | {"dial": make_node("TestDial", number=number)}

    return connect


@pytest.mark.parametrize(
    ("restraint", "expected"),
    [
        (0.0, (0.0, "adain", 0.6)),
        (0.2, (0.0, "adain", 0.48)),
        (0.25, (0.0, "wavelet", 0.45)),
        (0.6, (0.35, "wavelet", 0.31)),
        (1.0, (1.0, "wavelet", 0.15)),
    ],
)
def test_the_table_is_that_of_the_help_pages(nodes_of, restraint, expected):
    module = nodes_of("backbones.restraint")
    assert module.interpolate_restraint_row(restraint)[1:] == expected
    rows = [
        f"| {s.restraint:g} | {s.consistency:g} | {s.color_fix} | {s.denoise:g} |"
        for s in module.RESTRAINT_TABLE
    ]
    for page in ("CoZChainLoop.md", "CoZChainLoop/zh.md"):
        text = (ROOT / "js" / "docs" / page).read_text("utf-8")
        assert re.findall(r"^\| [\d.]+ \| [\d.]+ \| \w+ \| [\d.]+ \|$", text, re.MULTILINE) == rows


def test_it_is_the_fields_set_by_hand_and_says_so(host, keep, own_prompt, dial):
    def run(prompt):
        host.run(prompt)
        return keep[-1]["chain"], host.told

    def own(denoise_steps="", **inputs):
        chosen = {"control_net": None, "denoise_steps": denoise_steps}
        chosen |= {"denoise": inputs.pop("denoise")} if "denoise" in inputs else {}
        return own_prompt(steps=1, size=32, backbone=chosen, **inputs)

    found, told = run(dial(own("0.5", color_fix="none"), 0.6))
    settings = "consistency 0.35, color_fix wavelet, denoise 0.31 (denoise_steps is ignored)"
    assert f"restraint 0.6 sets {settings}" in told[-1].split("\n")
    by_hand, told = run(own(denoise=0.31, color_fix="wavelet", consistency=0.35))
    assert not any("restraint" in text for text in told)
    assert torch.equal(found.frames[-1], by_hand.frames[-1])
    assert found.denoises == by_hand.denoises == (0.31,)
    free, _ = run(own(color_fix="none"))
    assert free.denoises == (0.6,)
    assert not torch.equal(free.frames[-1], by_hand.frames[-1])


def test_full_image_sr_has_it_too(host, keep, dial):
    def run(value=None, **inputs):
        prompt = as_full_image(kept_prompt(), **inputs)
        prompt["source"] = make_node("CoZSamplePicture", picture="chelsea.png")
        crop = {"width": 24, "height": 24, "x": 99, "y": 99}
        prompt["small"] = make_node("ImageCrop", image=["source", 0], **crop)
        prompt["loop"]["inputs"]["image"] = ["small", 0]
        host.run(prompt if value is None else dial(prompt, value))
        return keep[-1]["image"]

    found = run(1.0, color_fix="none")
    told = "restraint 1 sets consistency 1, color_fix wavelet"  # an upscale model has no denoise
    assert told in host.told
    assert torch.equal(found, run(color_fix="wavelet", consistency=1.0))
