"""The texts of a chain's steps, one line for each step."""

EMPTY_PROMPT_MARK = "-"
"""Line that means an empty prompt. A blank line means "no text of my own for this step"."""

INVISIBLE_CHARACTERS = (
    "\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u2800\u3164\ufeff\uffa0"
)
"""Byte order mark, zero-width characters, direction marks and fillers, which have no meaning at the ends
of a text. Variation selectors and tags are not included, as they end emoji."""

_BLANKS = INVISIBLE_CHARACTERS + "".join(chr(code) for code in range(0x3001) if chr(code).isspace())


def replace_lone_surrogates(text: str) -> str:
    """Replace each lone surrogate by "?": JSON can hold one, but tokenizers reject it."""
    return text.encode("utf-8", "replace").decode()


def trim(text: str) -> str:
    """Remove white space and invisible characters from both ends of the text."""
    return text.strip(_BLANKS)


def join_lines(text: str) -> str:
    """Replace every kind of line break by a space, and trim the text."""
    return trim(" ".join(replace_lone_surrogates(text).splitlines()))


def clean_prompt(prompt: str) -> str:
    """Join the lines of a prompt and trim it; "-" means empty."""
    text = join_lines(prompt)
    return "" if text == EMPTY_PROMPT_MARK else text


def split_step_lines(step_prompts: str, steps: int) -> list[str]:
    """Return the user's own text for each step, "" where there is none.

    Only a line feed ends a line, so a text with another kind of line break stays one line. Lines
    beyond ``steps`` are ignored.
    """
    lines = [join_lines(line) for line in step_prompts.split("\n")[:steps]]
    return lines + [""] * (steps - len(lines))


def choose_step_texts(prompt: str, step_prompts: str, steps: int) -> list[str]:
    """Return the text of each step: its own line, or ``prompt`` if that is blank; "-" means empty."""
    return [clean_prompt(line or prompt) for line in split_step_lines(step_prompts, steps)]


def join_texts(texts: list[str]) -> str:
    """Join texts, one line for each step. Typed into ``step_prompts``, the result gives the same texts."""
    return "\n".join(join_lines(text) or EMPTY_PROMPT_MARK for text in texts)


def join_prompt(extracted: str, prompt: str) -> str:
    """Join the extracted text of a step and the user's own on one line."""
    prompt = join_lines(prompt)
    if prompt:
        extracted = extracted.rstrip(" .,;，。")
    return ", ".join(text for text in (extracted, prompt) if text)
