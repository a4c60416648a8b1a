"""Numbers for each step from one text."""

import pytest

from coz.text.step_numbers import read_step_numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("", []),
        (" \n\t\u200b", []),
        ("0.5", [0.5]),
        ("0.5, 0.4,0.3", [0.5, 0.4, 0.3]),
        ("0.5\n.4\r\n3e-1\n", [0.5, 0.4, 0.3]),
        ("0.5，0", [0.5, 0]),
        ("1,\n", None),
    ],
)
def test_commas_and_lines_separate(text, numbers):
    if numbers is None:
        with pytest.raises(ValueError, match='value 2 is ""'):
            read_step_numbers(text, "denoise_steps", 0, 1)
    else:
        assert read_step_numbers(text, "denoise_steps", 0, 1) == numbers


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("0.5, low", 2, "low"),
        ("0.5,,0.3", 2, ""),
        ("0.5\n\n0.3", 2, ""),
        ("1.5", 1, "1.5"),
        ("0,5", 2, "5"),
        ("-0.1", 1, "-0.1"),
        ("nan", 1, "nan"),
        ("0.5 0.4", 1, "0.5 0.4"),
    ],
)
def test_others_are_named_with_their_place(text, place, part):
    with pytest.raises(ValueError) as error:
        read_step_numbers(text, "denoise_steps", 0, 1)
    assert str(error.value) == (
        'denoise_steps must be numbers from 0 to 1, such as "0.5, 0.4, 0.3" or one on each line, '
        f'but value {place} is "{part}"'
    )
