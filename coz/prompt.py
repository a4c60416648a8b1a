"""What each step of a chain is told: one line of text a step, and how a model is asked for it."""

import re
from collections.abc import Iterator
from math import ceil, floor, sqrt
from typing import NamedTuple
from unicodedata import category

EMPTY = "-"
"""Stands for an empty prompt, where a blank line means "no text of my own for this step"."""

SINGLE_INSTRUCTION = "What is in this image? Give me a set of words."
"""Chain-of-Zoom inference_coz.py, get_validation_prompt: the system message where there is one image."""

MULTISCALE_INSTRUCTION = (
    "The second image is a zoom-in of the first image. Based on this knowledge, what is in the "
    "second image? Give me a set of words."
)
"""As above, for two images: the wider view, then the zoomed one. The user's turn holds images only."""

REPETITION_PENALTY = 1.05
"""Qwen2.5-VL-3B-Instruct generation_config.json; its temperature there is 1e-6, which is greedy."""

MAX_PIXELS = 14 * 14 * 4 * 1280
"""The default of transformers' smart_resize: 1280 tokens an image.

Deviation: the preprocessor_config.json of the models allows 12.8 and 16.8 megapixels, which makes
16384 tokens of a photograph for an answer of a few words. Frames of a chain are smaller than either.
"""


class Family(NamedTuple):
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

FAMILIES = {
    "qwen2.5": Family(QWEN_CHAT, QWEN_IMAGE, multiple_of=28, min_pixels=56 * 56),
    # The empty thoughts keep the Thinking variants from spending their tokens on them.
    "qwen3": Family(
        QWEN_CHAT + "<think>\n\n</think>\n\n", QWEN_IMAGE, multiple_of=32, min_pixels=256 * 256
    ),
    "gemma3": Family(
        "<start_of_turn>user\n{instruction}\n\n{images}<end_of_turn>\n<start_of_turn>model\n",
        "\n\n<start_of_image><image_soft_token><end_of_image>\n\n",
        square=896,
    ),
    "gemma4": Family(
        "<|turn>system\n{instruction}<turn|>\n<|turn>user\n{images}<turn|>\n<|turn>model\n"
        "<|channel>thought\n<channel|>",
        "\n\n<|image><|image|><image|>\n\n",
    ),
}
"""Qwen2.5-VL; Qwen3-VL and Qwen3.5; Gemma 3 (no system role: the instruction opens the user's turn);
Gemma 4. Source: chat_template and preprocessor_config.json of the models, and the processors in
transformers, which put a Gemma image between its two markers and blank lines."""

MARKER = re.compile(r"<[|/]?\w+[|/]?>")

LIST_MARK = re.compile(r"^(?:[-*+•·–]|#{1,6}|\d{1,2}[.)])\s+")

CLAUSE = re.compile(r"(.*?)([,;:.!?]+(?:\s+|$)|[，、。；：！？]\s*|$)")

NOUN = r"(?:images?|pictures?|photos?|photographs?|views?|versions?|portions?|parts?|sections?)"
VERB = (
    r"(?:is|are|was|were|shows?|showing|depicts?|depicting|contains?|containing|features?|"
    r"featuring|displays?|displaying|focuses|focusing|appears? to (?:be|show)|seems? to (?:be|show))"
)
PHRASE = re.compile(
    r"(?:\b(?:in|of|from|within|on|by|as|for|with|to)\s+)?(?:\b(?:the|this|that|a|an|both)\s+)?"
    rf"\b(?:(?:first|second|1st|2nd)\s+{NOUN}|zoom(?:s|ed|ing)?[-\u2010\u2011\s]?in(?:\s+{NOUN})?)\b"
    r"(?:\s+(?:of|on|on to|into)\b)?",
    re.IGNORECASE,
)
"""What tells of the two images instead of what they show. The paper's phrase reward punishes
"first image", "second image" and the like; its full list is not public."""

LEFT_OVER = re.compile(
    rf"^(?:(?:and|but|which|that|it|this|{VERB})\b\s*)+(?:of\b\s*|on\b\s*)?", re.IGNORECASE
)

EMPTY_CLAUSE = re.compile(
    rf"(?:\s|\b(?:a|an|the|of|in|on|as|and|it|that|which|{VERB})\b)*", re.IGNORECASE
)

REPEATED_WORDS = re.compile(r"\b(\w+(?:\W+\w+){0,7}?)(?:\W+\1\b){2,}", re.IGNORECASE)

REPEATED_CHARACTERS = re.compile(r"([^\s\d]{1,16}?)\1{5,}")

LETTER = (
    r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    r"\U00020000-\U0003ffff]"
)
"""Of a script that puts spaces between its words: not Thai, Lao, Burmese, Khmer, Chinese, Japanese."""

LAST_WORD = re.compile(rf"(?:{LETTER}+[-'’])*{LETTER}*$")


def one_line(text: str) -> str:
    """The text with every line break of any kind turned into a space, trimmed at its ends."""
    return " ".join(text.splitlines()).strip()


def step_lines(step_prompts: str, steps: int) -> list[str]:
    """Line i is the user's own text for step i, "" where there is none.

    Lines end at a line feed only, so that a text holding another kind of line break stays one line.
    Lines beyond ``steps`` wait for a longer chain.
    """
    lines = [one_line(line) for line in step_prompts.split("\n")[:steps]]
    return lines + [""] * (steps - len(lines))


def step_texts(prompt: str, step_prompts: str, steps: int) -> list[str]:
    """The text of each step: its own line where there is one, else ``prompt``; "-" is empty."""
    texts = [line or one_line(prompt) for line in step_lines(step_prompts, steps)]
    return ["" if text == EMPTY else text for text in texts]


def join_texts(texts: list[str]) -> str:
    """One line a step; given back as ``step_prompts`` it yields the same texts."""
    return "\n".join(one_line(text) or EMPTY for text in texts)


def chat_text(family: Family, instruction: str, images: int) -> str:
    """The conversation that asks about so many images, up to where the model answers.

    Markers typed into the instruction are broken by a space: none of them ends its turn.
    """
    instruction = re.sub(r"<(?=\S)", "< ", instruction.strip())
    return family.chat.format(instruction=instruction, images=family.image * images)


def smart_resize(
    height: int, width: int, multiple_of: int, min_pixels: int, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Height and width in pixels nearest to an image's own that a Qwen model takes.

    Source: transformers models/qwen2_vl/image_processing_qwen2_vl.py, smart_resize.
    Deviation: no error where one side is more than 200 times the other: such a strip is shown as it
    is, its short side enlarged to ``multiple_of``.
    """
    fitted = [round(side / multiple_of) * multiple_of for side in (height, width)]
    if fitted[0] * fitted[1] > max_pixels:
        shrink = sqrt(height * width / max_pixels)
        fitted = [
            max(multiple_of, floor(side / shrink / multiple_of) * multiple_of)
            for side in (height, width)
        ]
    elif fitted[0] * fitted[1] < min_pixels:
        grow = sqrt(min_pixels / (height * width))
        fitted = [ceil(side * grow / multiple_of) * multiple_of for side in (height, width)]
    return fitted[0], fitted[1]


def image_size(family: Family, height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which an image is given to a model of the family."""
    if family.square:
        return family.square, family.square
    if family.multiple_of:
        return smart_resize(height, width, family.multiple_of, family.min_pixels)
    return height, width


def clean_answer(answer: str, cut: bool = False) -> str:
    """What a vision-language model wrote, as one line for a text encoder; "" if nothing is left.

    Removed are thoughts, markers, list marks, control characters, phrases that tell of the two
    images, and what is said again. An answer without any of these stays as it is.

    Args:
        answer: as the tokenizer decodes it.
        cut: The token limit ended it, so its last word may be half a word.
    """
    text = answer.rpartition("</think>")[2].partition("<think>")[0]
    text = MARKER.sub(" ", text)
    if cut:
        text = _without_half_word(text)
    text = "".join(c for c in text if c.isspace() or _is_text(c)).replace("**", "")
    lines = (LIST_MARK.sub("", " ".join(line.split())) for line in text.splitlines())
    text = "\n".join(line for line in lines if line)
    text = re.sub(r"(?<=[^,;:.!?，、。；：！？])\n", ", ", text).replace("\n", " ")
    text = _without_repeats(_without_phrases(text))
    text = re.sub(r"(?:\s*,)+", ",", text)
    text = " ".join(text.split()).strip(" ,;，、；")
    return text if re.search(r"\w", text) else ""


def join_prompt(extracted: str, prompt: str) -> str:
    """The text of a step: what was extracted, then the user's own, on one line."""
    prompt = one_line(prompt)
    if prompt:
        extracted = extracted.rstrip(" .,;，。")
    return ", ".join(text for text in (extracted, prompt) if text)


def _is_text(character: str) -> bool:
    # Cf: marks of direction and the like, but joiners belong to the spelling of some scripts.
    kind = category(character)
    return character in "\u200c\u200d" or (
        kind not in {"Cc", "Cf", "Co", "Cs"} and character != "\ufffd"
    )


def _without_half_word(text: str) -> str:
    """A text of one word keeps it: it may be whole, and there is nothing else."""
    text = text.rstrip("\ufffd")
    shorter = LAST_WORD.sub("", text)
    return shorter if re.search(r"\w", shorter) else text


def _clauses(text: str) -> Iterator[tuple[str, str]]:
    """The parts between marks of punctuation, each with the mark behind it."""
    for match in CLAUSE.finditer(text):
        if match[0]:
            yield match[1], match[2]


def _without_phrases(text: str) -> str:
    if not PHRASE.search(text):
        return text
    kept = ""
    dropped = False
    for clause, end in _clauses(text):
        rest, removed = PHRASE.subn(" ", clause)
        if removed or dropped:
            rest = LEFT_OVER.sub("", rest.strip())
        dropped = bool((removed or dropped) and EMPTY_CLAUSE.fullmatch(rest))
        if not dropped:
            kept += rest + end
    return kept


def _without_repeats(text: str) -> str:
    for pattern in (REPEATED_CHARACTERS, REPEATED_WORDS):
        for match in list(pattern.finditer(text))[-1:]:
            rest = text[match.end() :].strip(" ,;.!?").casefold()
            if rest and match[1].casefold().startswith(rest):
                text = text[: match.end()]  # the loop was cut short there
        text = pattern.sub(r"\1", text)
    clauses = list(_clauses(text))
    said: dict[str, str] = {}
    for clause, end in clauses:
        said.setdefault(clause.strip().casefold(), clause + end)
    *earlier, last = said or [""]
    if len(said) < len(clauses) and any(key.startswith(last) for key in earlier):
        del said[last]
    return "".join(said.values())
