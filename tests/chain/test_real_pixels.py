import json
from dataclasses import replace

import pytest

from coz.chain.real_pixels import (
    COLOR_STOPS,
    RealPixels,
    count_real_pixels,
    describe_real_pixels,
    is_comparable,
    pick_real_pixels_color,
)
from coz.geometry import Window


def test_a_chain_of_4x_holds_a_sixteenth_of_the_pixels_a_step(make_chain):
    chain = make_chain(1024, 1024, size=512, steps=5, center=(0.3, 0.6))
    counted = [count_real_pixels(chain, layer) for layer in range(7)]
    sides = [1024, 512, 128, 32, 8, 2, 0.5]
    assert [(real.width, real.height) for real in counted] == [(side, side) for side in sides]
    assert [real.share for real in counted] == [1, 1, *(16.0**-i for i in range(1, 6))]
    words = [f"{side} x {side} real pixels" for side in (128, 32, 8, 2)]
    expected = ["all real", "all real", *words, "less than one real pixel"]
    assert list(map(describe_real_pixels, counted)) == expected
    assert [is_comparable(real) for real in counted] == [True] * 5 + [False] * 2


def test_steps_from_a_downscaled_first_frame_hold_the_pixels_of_that(make_chain):
    """They never saw the photograph's own, so that none of them is all real."""
    chain = make_chain(300, 400, size=64, steps=2)
    chain = replace(chain, windows=(Window(0, 0, 400, 300), *chain.windows[1:]))
    counted = [count_real_pixels(chain, layer) for layer in range(1, 4)]
    assert [(real.width, real.height) for real in counted] == [(400, 300), (16, 16), (4, 4)]
    assert [real.share for real in counted] == [400 * 300 / 64**2, 1 / 16, 1 / 256]
    assert describe_real_pixels(counted[0]) == "all real"
    assert describe_real_pixels(counted[1]) == "16 x 16 real pixels"
    assert json.loads(chain.to_json())["real_pixels"] == [[400, 300], [16, 16], [4, 4]]


def test_an_upscaled_first_frame_is_not_all_real(make_chain):
    chain = make_chain(64, 64, size=64, steps=1)
    chain = replace(chain, windows=(Window(8, 8, 16, 12), *chain.windows[1:]))
    first, step = (count_real_pixels(chain, layer) for layer in (1, 2))
    assert first == (16, 12, 16 * 12 / 64**2)
    assert step == (4, 3, 4 * 3 / 64**2)
    assert describe_real_pixels(first) == "16 x 12 real pixels"


@pytest.mark.parametrize(
    ("width", "height", "share", "words"),
    [
        (3000, 2000, 22.9, "all real"),  # a first frame that was downscaled
        (100, 80, 0.03, "100 x 80 real pixels"),  # one that was upscaled
        (170.5, 56.39, 0.04, "171 x 56.4 real pixels"),
        (3.125, 12.25, 0.01, "3.13 x 12.3 real pixels"),
        (1234.5, 999.6, 0.9, "1235 x 1000 real pixels"),
        (12_345_678, 2, 0.9, "12345678 x 2 real pixels"),
        (1, 1, 1e-4, "1 x 1 real pixel"),
        (1 - 1e-12, 1 + 1e-12, 1e-4, "1 x 1 real pixel"),  # what rounding makes of one
        (5, 0.4, 1e-4, "5 x 0.4 real pixels"),
        (0.99, 1, 1e-4, "less than one real pixel"),
    ],
)
def test_words(width, height, share, words):
    assert describe_real_pixels(RealPixels(width, height, share)) == words


def test_one_thin_side_is_not_comparable():
    assert not is_comparable(RealPixels(100, 7.9, 0.1))
    assert is_comparable(RealPixels(8, 8, 0.1))


def test_colors_are_the_stops_at_powers_of_4x_and_lie_between_them():
    assert tuple(pick_real_pixels_color(16.0**-i) for i in range(5)) == COLOR_STOPS
    assert pick_real_pixels_color(4.0) == COLOR_STOPS[0]
    assert pick_real_pixels_color(1e-30) == COLOR_STOPS[-1]
    assert pick_real_pixels_color(16.0**-1.5) == (196, 190, 62)
    with pytest.raises(ValueError, match="share must be above 0, got 0"):
        pick_real_pixels_color(0)
