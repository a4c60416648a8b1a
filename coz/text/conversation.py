"""How a vision-language model is asked what a view shows: its words and the size of its images."""

import re
from math import ceil, floor, sqrt
from typing import NamedTuple

SINGLE_INSTRUCTION = "What is in this image? Give me a set of words."
"""Chain-of-Zoom inference_coz.py, get_validation_prompt: the system message where there is one image."""

MULTISCALE_INSTRUCTION = (
    "The second image is a zoom-in of the first image. Based on this knowledge, what is in the "
    "second image? Give me a set of words."
)
"""As above, for two images: the wider view, then the zoomed one. The user's turn holds images only."""

REPETITION_PENALTY = 1.05
"""Qwen2.5-VL-3B-Instruct generation_config.json; its temperature there is 1e-6, which is greedy."""

MAX_IMAGE_PIXELS = 14 * 14 * 4 * 1280
"""The default of transformers' smart_resize: 1280 tokens an image.

Deviation: the preprocessor_config.json of the models allows 12.8 and 16.8 megapixels, which makes
16384 tokens of a photograph for an answer of a few words. Frames of a chain are smaller than either.
"""


class ModelFamily(NamedTuple):
    """How a family of vision-language models writes a conversation and takes an image."""

    chat: str
    """The text up to the answer; {instruction} and {images} stand for theirs."""
    image: str
    """What stands for one image in it."""
    multiple_of: int = 0
    """Sides of an image in pixels: patch size times patches merged. 0: the family has its own rule."""
    min_pixels: int = 0
    square: int = 0
    """Side in pixels where every image is made square."""


QWEN_CHAT = (
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{images}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

MODEL_FAMILIES = {
    "qwen2.5": ModelFamily(QWEN_CHAT, QWEN_IMAGE, multiple_of=28, min_pixels=56 * 56),
    # The empty thoughts keep the Thinking variants from spending their tokens on them.
    "qwen3": ModelFamily(
        QWEN_CHAT + "<think>\n\n</think>\n\n", QWEN_IMAGE, multiple_of=32, min_pixels=256 * 256
    ),
    "gemma3": ModelFamily(
        "<start_of_turn>user\n{instruction}\n\n{images}<end_of_turn>\n<start_of_turn>model\n",
        "\n\n<start_of_image><image_soft_token><end_of_image>\n\n",
        square=896,
    ),
    "gemma4": ModelFamily(
        "<|turn>system\n{instruction}<turn|>\n<|turn>user\n{images}<turn|>\n<|turn>model\n"
        "<|channel>thought\n<channel|>",
        "\n\n<|image><|image|><image|>\n\n",
    ),
}
"""Qwen2.5-VL; Qwen3-VL and Qwen3.5; Gemma 3 (no system role: the instruction opens the user's turn);
Gemma 4. Source: chat_template and preprocessor_config.json of the models, and the processors in
transformers, which put a Gemma image between its two markers and blank lines."""


def write_chat(family: ModelFamily, instruction: str, images: int) -> str:
    """The conversation that asks about so many images, up to where the model answers.

    Markers typed into the instruction are broken by a space: none of them ends its turn.
    """
    instruction = re.sub(r"<(?=\S)", "< ", instruction.strip())
    return family.chat.format(instruction=instruction, images=family.image * images)


def smart_resize(height: int, width: int, multiple_of: int, min_pixels: int) -> tuple[int, int]:
    """Height and width in pixels nearest to an image's own that a Qwen model takes.

    Source: transformers models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize.
    Deviation: no error where one side is more than 200 times the other: such a strip is shown as it
    is, its short side enlarged to ``multiple_of``.
    """
    fitted = [round(side / multiple_of) * multiple_of for side in (height, width)]
    if fitted[0] * fitted[1] > MAX_IMAGE_PIXELS:
        shrink = sqrt(height * width / MAX_IMAGE_PIXELS)
        fitted = [
            max(multiple_of, floor(side / shrink / multiple_of) * multiple_of)
            for side in (height, width)
        ]
    elif fitted[0] * fitted[1] < min_pixels:
        grow = sqrt(min_pixels / (height * width))
        fitted = [ceil(side * grow / multiple_of) * multiple_of for side in (height, width)]
    return fitted[0], fitted[1]


def choose_image_size(family: ModelFamily, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which an image is given to a model of the family."""
    if family.square:
        return family.square, family.square
    if family.multiple_of:
        return smart_resize(height, width, family.multiple_of, family.min_pixels)
    return height, width
