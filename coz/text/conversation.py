"""The conversation that asks a vision-language model what an image shows."""

import re
from math import ceil, floor, sqrt
from typing import NamedTuple

SINGLE_INSTRUCTION = "What is in this image? Give me a set of words."
"""System message for one image. Source: Chain-of-Zoom inference_coz.py, get_validation_prompt."""

MULTISCALE_INSTRUCTION = (
    "The second image is a zoom-in of the first image. Based on this knowledge, what is in the "
    "second image? Give me a set of words."
)
"""System message for two images, the previous frame and the enlarged crop. The user's turn holds only
images. Source: as above."""

REPETITION_PENALTY = 1.05
"""Source: Qwen2.5-VL-3B-Instruct generation_config.json. Its temperature of 1e-6 means greedy decoding."""

MAX_IMAGE_PIXELS = 14 * 14 * 4 * 1280
"""Maximum size of an image, 1280 tokens: the default of transformers' smart_resize.

Deviation: the models' preprocessor_config.json allow 12.8 and 16.8 megapixels, up to 16384 tokens for
an answer of a few words. Frames of a chain are usually smaller than 1280 tokens
(1 megapixel), so neither limit takes effect.
"""


class ModelFamily(NamedTuple):
    """The chat format and the image size of a family of vision-language models."""

    chat: str
    """The text before the answer, with the placeholders {instruction} and {images}."""
    image: str
    """The text that stands for one image in ``chat``."""
    multiple_of: int = 0
    """Sides of an image are multiples of this many pixels: the patch size times the merged patches per
    side. 0 if ``square`` states the size, or any size is allowed."""
    min_pixels: int = 0
    square: int = 0
    """Side in pixels to which every image is resized; 0 if images keep their shape."""


QWEN_CHAT = (
    "<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n{images}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
QWEN_IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"

MODEL_FAMILIES = {
    # Qwen2.5-VL
    "qwen2.5": ModelFamily(QWEN_CHAT, QWEN_IMAGE, multiple_of=28, min_pixels=56 * 56),
    # Qwen3-VL and Qwen3.5. The empty thoughts keep Thinking variants from spending tokens on thoughts.
    "qwen3": ModelFamily(
        QWEN_CHAT + "<think>\n\n</think>\n\n", QWEN_IMAGE, multiple_of=32, min_pixels=256 * 256
    ),
    # Gemma 3 has no system role: the instruction opens the user's turn.
    "gemma3": ModelFamily(
        "<start_of_turn>user\n{instruction}\n\n{images}<end_of_turn>\n<start_of_turn>model\n",
        "\n\n<start_of_image><image_soft_token><end_of_image>\n\n",
        square=896,
    ),
    # Gemma 4
    "gemma4": ModelFamily(
        "<|turn>system\n{instruction}<turn|>\n<|turn>user\n{images}<turn|>\n<|turn>model\n"
        "<|channel>thought\n<channel|>",
        "\n\n<|image><|image|><image|>\n\n",
    ),
}
"""Source: chat_template and preprocessor_config.json of the models, and the processors in transformers, which
put a Gemma image between its two markers and blank lines."""


def write_chat(family: ModelFamily, instruction: str, images: int) -> str:
    """Write the conversation about a number of images, up to the model's answer.

    Each "<" in the instruction gets a space behind it, so that no special token in it takes effect.
    """
    instruction = re.sub(r"<(?=\S)", "< ", instruction.strip())
    return family.chat.format(instruction=instruction, images=family.image * images)


def find_qwen_image_size(
    height: int, width: int, multiple_of: int, min_pixels: int
) -> tuple[int, int]:
    """Find the height and width in pixels, close to an image's own, that a Qwen model accepts.

    Source: transformers models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize.
    Deviation: no error if one side is more than 200 times the other; the short side of such a strip is
    enlarged to ``multiple_of``.
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
    """Choose the height and width in pixels at which a model of the family receives an image."""
    if family.square:
        return family.square, family.square
    if family.multiple_of:
        return find_qwen_image_size(height, width, family.multiple_of, family.min_pixels)
    return height, width
