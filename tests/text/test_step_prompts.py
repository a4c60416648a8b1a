import pytest

from coz.text.step_prompts import choose_step_texts, join_lines, join_prompt, join_texts

HEART, CODER = "\u2764\ufe0f", "\U0001f468\u200d\U0001f4bb"


@pytest.mark.parametrize(
    ("prompt", "step_prompts", "expected"),
    [
        pytest.param("a cat", "", ["a cat"] * 3, id="prompt for every step"),
        pytest.param("a", "x\n\nz", ["x", "a", "z"], id="a blank line keeps the prompt"),
        pytest.param("a", "-\n - \n", ["", "", "a"], id="- is empty"),
        pytest.param("-", "", ["", "", ""], id="- as the prompt"),
        pytest.param("", "x", ["x", "", ""], id="no prompt"),
        pytest.param("a", "1\n2\n3\n4", ["1", "2", "3"], id="lines beyond the steps wait"),
        pytest.param("a\r\nb\u2028c", "", ["a b c"] * 3, id="a prompt is one line"),
        pytest.param("\ud800 a", "x\udfff", ["x?", "? a", "? a"], id="half of a character"),
        pytest.param("a", "\ufeff-\n\u200b\nz\u2060 ", ["", "a", "z"], id="invisible characters"),
        pytest.param("\ufeff \u200b", "", ["", "", ""], id="an invisible prompt"),
        pytest.param(HEART, CODER, [CODER, HEART, HEART], id="emoji stay whole"),
        pytest.param("a", "x\u2028y\r\nz", ["x y", "z", "a"], id="lines end at \\n only"),
    ],
)
def test_step_texts(prompt, step_prompts, expected):
    assert choose_step_texts(prompt, step_prompts, 3) == expected


@pytest.mark.parametrize("texts", [["a", "", "c, d"], ["", "", ""], ["-", "x\ny", " z "]])
def test_joined_texts_given_back_make_the_same_texts(texts):
    steps = choose_step_texts("not used", join_texts(texts), len(texts))
    assert steps == ["" if join_lines(t) == "-" else join_lines(t) for t in texts]
    assert join_texts(steps) == join_texts(texts)


@pytest.mark.parametrize(
    ("extracted", "prompt", "expected"),
    [
        ("a cat", "sharp", "a cat, sharp"),
        ("a cat", "", "a cat"),
        ("a cat.", "", "a cat."),
        ("A cat.", " sharp\nand (clear:1.2) ", "A cat, sharp and (clear:1.2)"),
        ("", "sharp", "sharp"),
        ("", " \n", ""),
        ("猫。", "sharp", "猫, sharp"),
    ],
)
def test_join_prompt(extracted, prompt, expected):
    assert join_prompt(extracted, prompt) == expected
