import pytest

from coz.prompt import (
    FAMILIES,
    chat_text,
    clean_answer,
    image_size,
    join_prompt,
    join_texts,
    one_line,
    step_texts,
)


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
        pytest.param("a", "x\u2028y\r\nz", ["x y", "z", "a"], id="lines end at \\n only"),
    ],
)
def test_step_texts(prompt, step_prompts, expected):
    assert step_texts(prompt, step_prompts, 3) == expected


@pytest.mark.parametrize("texts", [["a", "", "c, d"], ["", "", ""], ["-", "x\ny", " z "]])
def test_joined_texts_given_back_make_the_same_texts(texts):
    steps = step_texts("not used", join_texts(texts), len(texts))
    assert steps == ["" if one_line(t) == "-" else one_line(t) for t in texts]
    assert join_texts(steps) == join_texts(texts)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (
            "qwen2.5",
            "<|im_start|>system\nAsk?<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
            "<|vision_end|><|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
            "<|im_start|>assistant\n",
        ),
        (
            "qwen3",
            "<|im_start|>system\nAsk?<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|>"
            "<|vision_end|><|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        (
            "gemma3",
            "<start_of_turn>user\nAsk?\n\n\n\n<start_of_image><image_soft_token><end_of_image>\n\n"
            "\n\n<start_of_image><image_soft_token><end_of_image>\n\n<end_of_turn>\n"
            "<start_of_turn>model\n",
        ),
        (
            "gemma4",
            "<|turn>system\nAsk?<turn|>\n<|turn>user\n\n\n<|image><|image|><image|>\n\n"
            "\n\n<|image><|image|><image|>\n\n<turn|>\n<|turn>model\n<|channel>thought\n<channel|>",
        ),
    ],
)
def test_conversation(family, expected):
    assert chat_text(FAMILIES[family], " Ask?\n", 2) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_no_marker_of_the_instruction_is_left(family):
    family = FAMILIES[family]
    markers = "<|im_end|><end_of_turn><turn|></think><|image_pad|><<|im_start|>user"
    plain = chat_text(family, "", 1)
    text = chat_text(family, f"a{markers}b <c {{images}}", 1)
    assert text.count("<") - text.count("< ") == plain.count("<") - plain.count("< ")
    assert "a< |im_end|>" in text
    assert "b < c {images}" in text


@pytest.mark.parametrize(
    ("family", "size", "expected"),
    [
        ("qwen2.5", (512, 512), (504, 504)),
        ("qwen2.5", (1, 1), (56, 56)),
        ("qwen2.5", (20, 8000), (28, 8008)),
        ("qwen2.5", (3000, 4000), (840, 1148)),
        ("qwen3", (512, 512), (512, 512)),
        ("qwen3", (1, 1), (256, 256)),
        ("qwen3", (8000, 20), (8000, 32)),
        ("gemma3", (20, 8000), (896, 896)),
        ("gemma4", (20, 8000), (20, 8000)),
    ],
)
def test_image_size(family, size, expected):
    assert image_size(FAMILIES[family], *size) == expected


@pytest.mark.parametrize(
    "answer",
    [
        "Leaf, green, veins.",
        "a cat's eye; orange fur (close-up): 3.5 mm, 12:30, 1000000 hairs",
        "Image of a cat. It is a photo, zoomed out.",
        "红色的毛，白色的爪",
        "می\u200cخواهم",
        "fur fur",
    ],
)
def test_a_clean_answer_stays(answer):
    assert clean_answer(answer) == answer
    assert clean_answer(f" \n{answer}\n\n") == answer


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param("a\tb \r\n", "a b", id="whitespace"),
        pytest.param("1. cat\n2. fur\n\n3) eye", "cat, fur, eye", id="numbered list"),
        pytest.param("- **cat**\n* fur,\n• eye", "cat, fur, eye", id="bullets"),
        pytest.param("A cat.\nIts fur", "A cat. Its fur", id="sentences"),
        pytest.param("c\x00a\u202et\x07\ufffd\ue000\ud800", "cat", id="control characters"),
        pytest.param("<think>\nhm\n</think>\n\ncat", "cat", id="thoughts"),
        pytest.param("hm</think>cat", "cat", id="thoughts opened by the template"),
        pytest.param("<think>hm", "", id="thoughts only"),
        pytest.param("cat<|im_end|><end_of_turn><turn|><eos>", "cat", id="markers"),
        pytest.param("cat, fur, Cat, fur", "cat, fur", id="said again"),
        pytest.param("red fur red fur red fur red", "red fur", id="loop of words"),
        pytest.param("cat, fur, " * 50 + "ca", "cat, fur", id="loop of items"),
        pytest.param("It is a cat. " * 9 + "It is", "It is a cat", id="loop of sentences"),
        pytest.param("红色的毛" * 30 + "红色", "红色的毛", id="loop without spaces"),
        pytest.param("cat!!!!!!!!!!!!", "cat!", id="loop of marks"),
        pytest.param("....", "", id="no word"),
        pytest.param("", "", id="nothing"),
    ],
)
def test_clean_answer(answer, expected):
    assert clean_answer(answer) == expected
    assert clean_answer(expected) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The second image is a zoom-in of the first image, showing cat fur.", "cat fur."),
        ("In the second image, there is a cat's eye, and fur.", "there is a cat's eye, and fur."),
        ("The second image shows a leaf. The leaf is green.", "a leaf. The leaf is green."),
        ("The second image, a zoomed-in view of the first image, shows a cat", "a cat"),
        ("The fur in the second image is soft", "The fur is soft"),
        ("Zoom‑in: moss, ZOOM IN", "moss"),
        ("second image", ""),
    ],
)
def test_phrases_about_the_two_images_are_removed(answer, expected):
    assert clean_answer(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("a cat, whisk", "a cat"),
        ("a cat with well-kno", "a cat with"),
        ("the cat's e", "the cat's"),
        ("the cat's", "the"),
        ("a cat ", "a cat"),
        ("a cat.", "a cat."),
        ("whisk", "whisk"),
        ("caf\ufffd", "caf"),
        ("红色的毛，白", "红色的毛，白"),
        ("红色\ufffd", "红色"),
        ("고양이 털", "고양이"),
        ("a cat, a dog, a cat, a d", "a cat, a dog"),
    ],
)
def test_an_answer_cut_by_the_limit_loses_its_last_word(answer, expected):
    assert clean_answer(answer, cut=True) == expected


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
