import json
import math
from dataclasses import replace

import pytest
import torch

from coz.chain.zoom_chain import ZoomChain, __version__, derive_step_seed
from coz.geometry import Target, Window, place_first_frame, plan_steps


def test_windows_in_ancestors_compose(make_chain):
    chain = make_chain()
    assert chain.find_window_in(1, 0) == chain.windows[0]
    assert chain.find_window_in(2, 2) == Window(0, 0, 64, 64)
    outer, inner = chain.windows[1], chain.windows[2]
    x, y, width, height = (value / 4 for value in inner)
    assert chain.find_window_in(3, 1) == Window(outer.x + x, outer.y + y, width, height)


def test_every_layer_holds_the_target(make_chain):
    chain = make_chain(center=(0.9, 0.1))
    for layer in range(1, 5):
        x, y, width, height = chain.find_window_in(layer, 0)
        assert x <= 0.9 * 400 <= x + width
        assert y <= 0.1 * 300 <= y + height


def test_magnification_comes_from_the_windows(make_chain):
    chain = make_chain(scale=3.0)  # 64 / 3 is 21 whole pixels
    assert chain.compute_magnification(0) == (1, 1)
    assert chain.compute_magnification(1) == (1, 1)
    assert chain.compute_magnification(3) == pytest.approx(((64 / 21) ** 2,) * 2)


def test_a_cache_is_told_every_frame(make_chain):
    chain = make_chain(height=300, width=400, size=64, steps=3)
    counted = chain._comfy_cache_tensors()
    assert all(a is b for a, b in zip(counted, chain.frames, strict=True))
    assert sum(tensor.nbytes for tensor in counted) == 3 * 4 * (300 * 400 + 4 * 64 * 64)


def test_json_form_is_frozen(make_chain):
    assert json.loads(make_chain(64, 64, steps=1, center=(0.5, 0.5)).to_json()) == {
        "version": 1,
        "scale": 4.0,
        "steps": 1,
        "frames": [[64, 64], [64, 64], [64, 64]],
        "windows": [[0, 0, 64, 64], [24, 24, 16, 16]],
        "prompts": ["text 0"],
        "seeds": [derive_step_seed(7, 1)],
        "real_pixels": [[64, 64], [16, 16]],
        "agreements": [],
        "invented": [],
        "target": [0.5, 0.5],
        "models": [],
        "pack": __version__,
    }


def test_figures_survive_json(make_chain):
    chain = replace(make_chain(), agreements=(math.nan, 99, 31.25), invented=(math.nan, 0, 0.125))
    text = chain.to_json()
    assert '"agreements": [null, 99, 31.25]' in text
    again = ZoomChain.from_json(text, chain.frames)
    assert again.agreements == pytest.approx(chain.agreements, nan_ok=True)
    assert again.invented == pytest.approx(chain.invented, nan_ok=True)
    assert again.to_json() == ZoomChain.from_json(again.to_json(), chain.frames).to_json()


def test_denoises_survive_json_and_are_left_out_where_there_are_none(make_chain):
    chain = make_chain()
    assert "denoises" not in json.loads(chain.to_json())
    chain = replace(chain, denoises=(0.5, math.nan, 0.25))
    assert json.loads(chain.to_json())["denoises"] == [0.5, None, 0.25]
    again = ZoomChain.from_json(chain.to_json(), chain.frames)
    assert again.denoises == pytest.approx(chain.denoises, nan_ok=True)


def test_a_record_without_figures_is_read(make_chain):
    chain = make_chain()
    again = ZoomChain.from_json(edited(chain, agreements=None, invented=None), chain.frames)
    assert again.agreements == again.invented == ()


@pytest.mark.parametrize("value", [None, ""])
def test_a_record_without_a_colour_profile_is_read(make_chain, value):
    chain = make_chain()
    assert "color_profile" not in json.loads(chain.to_json())
    again = ZoomChain.from_json(edited(chain, color_profile=value), chain.frames)
    assert again.color_profile == ""
    assert again.to_json() == chain.to_json()


@pytest.mark.parametrize("name", ["agreements", "invented", "denoises"])
def test_figures_are_of_all_steps_or_of_none(make_chain, name):
    with pytest.raises(ValueError, match=f"a chain of 3 steps has 3 {name} or none, got 2"):
        replace(make_chain(), **{name: (0.5, 0.5)})


def test_step_seeds_are_frozen_distinct_and_survive_json():
    assert derive_step_seed(0, 1) == 9005795594288616
    seeds = {derive_step_seed(seed, step) for seed in (0, 1, 2**64 - 1) for step in range(1, 17)}
    assert len(seeds) == 48
    assert max(seeds) < 2**53


def edited(chain, **fields):
    """The chain's record with other values; None takes a field out."""
    record = json.loads(chain.to_json()) | fields
    return json.dumps({key: value for key, value in record.items() if value is not None})


NAN, HUGE = float("nan"), 10**400
W = [0, 0, 16, 16]  # a window that fits into each of the frames below the source


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2, "windows": None}, "version 2; this pack reads up to 1: update the pack"),
        ({"version": "x"}, "version is 'x', expected a whole number up to 1. Undo the edit"),
        ({"version": True}, "version is True"),
        ({"version": 0}, "version is 0"),
        ({"windows": None, "seeds": None}, "this is no chain record: windows, seeds missing"),
        ({"steps": 4}, "steps is 4, expected 3, because frames has 5 entries"),
        ({"scale": "4"}, "scale is '4', expected a number from 1.01 to 100"),
        ({"scale": NAN}, "scale is nan"),
        ({"scale": float("inf")}, "scale is inf"),
        ({"scale": HUGE}, "scale is 1000"),
        ({"scale": 1}, "scale is 1, expected a number from 1.01"),
        ({"scale": True}, "scale is True"),
        ({"frames": 5}, r"frames is 5, expected the \[width, height\] of the source and of 1 to 17"),
        ({"frames": [[64, 64]]}, r"frames is \[\[64, 64\]\]"),
        ({"frames": [[64, 64]] * 100_000, "steps": None}, "of 1 to 17 frames"),
        ({"frames": [[400, 300], 64, *[[64, 64]] * 3]}, r"frames\[1\] is 64, expected \[width, h"),
        ({"frames": [[400, 300.0], *[[64, 64]] * 4]}, r"frames\[0\] is 300.0, expected a whole num"),
        ({"frames": [[400, 0], *[[64, 64]] * 4]}, r"frames\[0\] is 0, expected a whole number from 1"),
        ({"frames": [[400, 300], *[[64, 64]] * 3, [64, 65]]}, r"frames\[4\] is \[64, 65\], expected the size of the first frame, \[64, 64\]"),
        ({"frames": [[100_000, 100_000], *[[64, 64]] * 4]}, "10,000,016,384 pixels together; a saved chain may have 250,000,000"),
        ({"frames": [[HUGE, 1], *[[64, 64]] * 4]}, r"frames\[0\] is 1000"),
        ({"windows": [W] * 3}, "a chain of 3 steps has 4 windows, got 3"),
        ({"windows": "here"}, "a chain of 3 steps has 4 windows, got 'here'"),
        ({"windows": [W, W, [0, 0, 16], W]}, r"windows\[2\] is \[0, 0, 16\], expected \[x, y, width, h"),
        ({"windows": [W, W, {"x": 0}, W]}, r"windows\[2\] is \{'x': 0\}"),
        ({"windows": [W, W, [0, 0, 16, "16"], W]}, r"windows\[2\] is \[0, 0, 16, '16'\]"),
        ({"windows": [W, W, [0, 0, 16, NAN], W]}, r"windows\[2\] is \[0, 0, 16, nan\]"),
        ({"windows": [W, W, [HUGE, 0, 1.5, 16], W]}, r"windows\[2\] is \[1000"),
        ({"windows": [W, W, [0, 0, 0, 16], W]}, "at least one pixel each way"),
        ({"windows": [W, W, [0, 0, 16, 0.5], W]}, "at least one pixel each way"),
        ({"windows": [W, W, [-1, 0, 16, 16], W]}, "inside a frame of 64 x 64 pixels"),
        ({"windows": [W, W, W, [48.1, 0, 16, 16]]}, r"windows\[3\] is \[48.1, 0, 16, 16\]"),
        ({"windows": [[336, 237, 64, 64], W, W, W]}, "inside a frame of 400 x 300 pixels"),
        ({"prompts": []}, "a chain of 3 steps has 3 prompts, got 0"),
        ({"prompts": ["a", None, "c"]}, r"prompts\[1\] is None, expected a quoted string"),
        ({"prompts": ["a", "b", ["c"] * 999]}, r"prompts\[2\] is \['c', 'c', 'c', 'c', 'c', 'c', ...\],"),
        ({"seeds": [1, 2, 3, 4]}, "a chain of 3 steps has 3 seeds, got 4"),
        ({"seeds": [1, 2, 3.5]}, r"seeds\[2\] is 3.5, expected a whole number from 0 to 9007199254740991"),
        ({"seeds": [1, 2, -1]}, r"seeds\[2\] is -1"),
        ({"seeds": [1, 2, 2**53]}, r"seeds\[2\] is 9007199254740992"),
        ({"target": 0.5}, r"target is 0.5, expected two fractions of the source"),
        ({"target": [0.5, 1.5]}, r"target\[1\] is 1.5, expected a number from 0 to 1"),
        ({"models": "m.safetensors"}, "models is 'm.safetensors', expected a list of names"),
        ({"models": [7]}, r"models\[0\] is 7, expected a quoted string"),
        ({"color_profile": 7}, "color_profile is 7, expected a quoted string"),
        ({"color_profile": []}, r"color_profile is \[\], expected a quoted string"),
        ({"agreements": [30.5]}, "a chain of 3 steps has 3 agreements, got 1"),
        ({"agreements": "30"}, "a chain of 3 steps has 3 agreements, got '30'"),
        ({"agreements": [30.5, "31", 32]}, r"agreements\[1\] is '31', expected a number from -10 to 1000"),
        ({"agreements": [30.5, 31, NAN]}, r"agreements\[2\] is nan"),
        ({"agreements": [30.5, 31, HUGE]}, r"agreements\[2\] is 1000"),
        ({"invented": [0.1, True, 0.3]}, r"invented\[1\] is True, expected a number from 0 to 1"),
        ({"invented": [0.1, 0.2, 12]}, r"invented\[2\] is 12"),
        ({"denoises": [0.1, 0.2, 1.5]}, r"denoises\[2\] is 1.5, expected a number from 0 to 1"),
        ({"sha256": ["0" * 64]}, "a chain of 3 steps has 5 sha256, got 1"),
        ({"sha256": ["0" * 63] * 5}, r"sha256\[0\] is '0000.*, expected 64 digits 0-9 a-f"),
    ],
)  # fmt: skip
def test_an_edited_record_is_refused(make_chain, fields, message):
    chain = make_chain()
    with pytest.raises(ValueError, match=message) as error:
        ZoomChain.from_json(edited(chain, **fields), chain.frames)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "this is no chain record, because it is not JSON: Expecting value"),
        ("{'version': 1}", "not JSON: Expecting property name enclosed in double quotes: line 1"),
        ("[1]", r"this is no chain record: it starts with '\[1\]'"),
        ("null", "it starts with 'null'"),
        ("[" * 5_000_000, "its brackets are nested too deep"),
        ('{"a":' * 100_000, "its brackets are nested too deep"),
        ('{"version": 1' + "0" * 10_000_000 + "}", "this is no chain record"),
    ],
    ids=["nothing", "Python", "a list", "null", "deep lists", "deep objects", "a long number"],
)
def test_a_text_that_is_no_record_is_refused(make_chain, text, message):
    with pytest.raises(ValueError, match=message):
        ZoomChain.from_json(text, make_chain().frames)


def test_frames_of_other_sizes_than_the_record_are_refused(make_chain):
    chain = make_chain()
    message = r"record has frames of sizes \(\(400, 300\), .* got \(\(400, 300"
    with pytest.raises(ValueError, match=message):
        ZoomChain.from_json(chain.to_json(), chain.frames[:-1])


def test_what_may_be_edited(make_chain):
    chain = make_chain()
    prompts = ["<script>alert(1)</script>", "", "深い \ud800"]
    fields = {"prompts": prompts, "scale": 2, "note": {"mine": NAN}, "models": None}
    fields |= {"files": ["/etc/passwd", "../../x"], "path": "/etc/passwd"}  # which are not read
    again = ZoomChain.from_json(edited(chain, **fields), chain.frames)
    assert (again.prompts, again.scale, again.models) == (tuple(prompts), 2.0, ())


@pytest.mark.parametrize("frame", ["native pixels", "whole picture square", "whole picture"])
@pytest.mark.parametrize("scale", [1.5, 3.2, 8.0])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 3), (33, 1000), (3001, 17)])
def test_a_record_of_any_real_chain_is_read(height, width, scale, frame):
    target = Target(1.0, 0.3)
    first = place_first_frame(height, width, 48, frame, target)
    plan = plan_steps(first.height, first.width, scale, 16, first.target)
    shapes = [(height, width), *[(first.height, first.width)] * 17]
    chain = ZoomChain(
        scale=scale,
        frames=tuple(torch.zeros(1).expand(1, 3, *shape) for shape in shapes),
        windows=(first.window, *(step.window for step in plan)),
        prompts=("",) * 16,
        seeds=tuple(derive_step_seed(2**64 - 1, i) for i in range(16)),
        target=target,
    )
    assert ZoomChain.from_json(chain.to_json(), chain.frames).to_json() == chain.to_json()


def test_errors_name_the_value(make_chain):
    chain = make_chain()
    with pytest.raises(ValueError, match="got ancestor 3 and layer 2"):
        chain.find_window_in(2, 3)
    with pytest.raises(ValueError, match="layer at most 4, got ancestor 0 and layer 5"):
        chain.find_window_in(5, 0)
    with pytest.raises(ValueError, match="at least a source and a first frame"):
        ZoomChain(4.0, chain.frames[:1], (), (), (), chain.target)


def test_record_without_a_target_aims_at_the_middle_of_the_deepest_frame(make_chain):
    chain = make_chain(center=(0.6, 0.4))  # far from every edge: windows are centred on it
    record = json.loads(chain.to_json())
    del record["target"], record["models"], record["pack"]  # as the first records were
    again = ZoomChain.from_json(json.dumps(record), chain.frames)
    assert again.target == pytest.approx(chain.target, abs=1 / 400)
    assert again.models == ()
