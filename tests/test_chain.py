import json

import pytest

from coz.chain import ZoomChain, __version__, step_seed
from coz.geometry import Window


def test_windows_in_ancestors_compose(make_chain):
    chain = make_chain()
    assert chain.window_in(1, 0) == chain.windows[0]
    assert chain.window_in(2, 2) == Window(0, 0, 64, 64)
    outer, inner = chain.windows[1], chain.windows[2]
    assert chain.window_in(3, 1) == Window(
        outer.x + inner.x / 4, outer.y + inner.y / 4, inner.width / 4, inner.height / 4
    )


def test_every_layer_holds_the_target(make_chain):
    chain = make_chain(center=(0.9, 0.1))
    for layer in range(1, 5):
        x, y, width, height = chain.window_in(layer, 0)
        assert x <= 0.9 * 400 <= x + width
        assert y <= 0.1 * 300 <= y + height


def test_magnification_comes_from_the_windows(make_chain):
    chain = make_chain(scale=3.0)  # 64 / 3 is 21 whole pixels
    assert chain.magnification(0) == (1, 1)
    assert chain.magnification(1) == (1, 1)
    assert chain.magnification(3) == pytest.approx(((64 / 21) ** 2,) * 2)


def test_json_round_trip(make_chain):
    chain = make_chain()
    again = ZoomChain.from_json(chain.to_json(), chain.frames)
    assert again.to_json() == chain.to_json()
    assert (again.windows, again.prompts, again.seeds) == (
        chain.windows,
        chain.prompts,
        chain.seeds,
    )


def test_json_form_is_frozen(make_chain):
    record = json.loads(make_chain(64, 64, steps=1, center=(0.5, 0.5)).to_json())
    assert record == {
        "version": 1,
        "scale": 4.0,
        "steps": 1,
        "frames": [[64, 64], [64, 64], [64, 64]],
        "windows": [[0, 0, 64, 64], [24, 24, 16, 16]],
        "prompts": ["text 0"],
        "seeds": [step_seed(7, 1)],
        "target": [0.5, 0.5],
        "models": [],
        "pack": __version__,
    }


def test_step_seeds_are_frozen_distinct_and_survive_json():
    assert step_seed(0, 1) == 9005795594288616
    seeds = {step_seed(seed, step) for seed in (0, 1, 2**64 - 1) for step in range(1, 17)}
    assert len(seeds) == 48
    assert max(seeds) < 2**53


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: [r], "this is no chain record: it starts with"),
        (lambda r: r | {"version": 2}, "version 2; this pack reads up to 1: update the pack"),
        (lambda r: r | {"version": "x"}, "version x"),
        (lambda r: {k: v for k, v in r.items() if k != "windows"}, "no chain record: windows missing"),
        (lambda r: r | {"frames": [[1, 1]]}, r"record is of frames \[\[1, 1\]\]"),
        (lambda r: r | {"prompts": []}, "a chain of 3 steps has 3 prompts, got 0"),
    ],
)  # fmt: skip
def test_a_bad_record_is_refused(make_chain, change, message):
    chain = make_chain()
    with pytest.raises(ValueError, match=message):
        ZoomChain.from_json(json.dumps(change(json.loads(chain.to_json()))), chain.frames)


def test_errors_name_the_value(make_chain):
    chain = make_chain()
    with pytest.raises(ValueError, match="got ancestor 3 and layer 2"):
        chain.window_in(2, 3)
    with pytest.raises(ValueError, match="layer at most 4, got ancestor 0 and layer 5"):
        chain.window_in(5, 0)
    with pytest.raises(ValueError, match="at least its source and its first frame"):
        ZoomChain(4.0, chain.frames[:1], (), (), (), chain.target)


def test_record_without_a_target_aims_at_the_middle_of_the_deepest_frame(make_chain):
    chain = make_chain(center=(0.6, 0.4))  # far from every edge: windows are centred on it
    record = json.loads(chain.to_json())
    del record["target"], record["models"], record["pack"]  # as the first records were
    again = ZoomChain.from_json(json.dumps(record), chain.frames)
    assert again.target == pytest.approx(chain.target, abs=1 / 400)
    assert again.models == ()
