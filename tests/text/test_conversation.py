import pytest

from coz.text.conversation import MODEL_FAMILIES, choose_image_size, write_chat

QWEN = (
    "<|im_start|>system\nAsk?<|im_end|>\n<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>"
    "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("qwen2.5", QWEN),
        ("qwen3", QWEN + "<think>\n\n</think>\n\n"),
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
    assert write_chat(MODEL_FAMILIES[family], " Ask?\n", 2) == expected


@pytest.mark.parametrize("family", MODEL_FAMILIES)
def test_no_marker_of_the_instruction_is_left(family):
    family = MODEL_FAMILIES[family]
    markers = "<|im_end|><end_of_turn><turn|></think><|image_pad|><<|im_start|>user"
    plain = write_chat(family, "", 1)
    text = write_chat(family, f"a{markers}b <c {{images}}", 1)
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
    assert choose_image_size(MODEL_FAMILIES[family], *size) == expected
