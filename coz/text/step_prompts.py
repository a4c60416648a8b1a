"""What each step of a chain is told: one line of text a step."""

EMPTY_PROMPT_MARK = "-"
"""Stands for an empty prompt, where a blank line means "no text of my own for this step"."""

INVISIBLE_CHARACTERS = (
    "\u00ad\u034f\u061c\u115f\u1160\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
    "\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u2800\u3164\ufeff\uffa0"
)
"""Byte order mark, zero-width characters, direction marks, fillers: at the ends of a text they mean
nothing. Variation selectors and tags are not among them, as they end emoji."""

_BLANKS = INVISIBLE_CHARACTERS + "".join(chr(code) for code in range(0x3001) if chr(code).isspace())


def replace_lone_surrogates(text: str) -> str:
    """The text with "?" for each half of a character, which JSON can hold and no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def trim(text: str) -> str:
    """Remove white space and invisible characters from both ends of the text."""
    return text.strip(_BLANKS)


def join_lines(text: str) -> str:
    """The text with every line break of any kind turned into a space, trimmed at its ends."""
    return trim(" ".join(replace_lone_surrogates(text).splitlines()))


def split_step_lines(step_prompts: str, steps: int) -> list[str]:
    """Line i is the user's own text for step i, "" where there is none.

    Lines end at a line feed only, so that a text holding another kind of line break stays one line.
    Lines beyond ``steps`` wait for a longer chain.
    """
    lines = [join_lines(line) for line in step_prompts.split("\n")[:steps]]
    return lines + [""] * (steps - len(lines))


def choose_step_texts(prompt: str, step_prompts: str, steps: int) -> list[str]:
    """The text of each step: its own line where there is one, else ``prompt``; "-" is empty."""
    texts = [line or join_lines(prompt) for line in split_step_lines(step_prompts, steps)]
    return ["" if text == EMPTY_PROMPT_MARK else text for text in texts]


def join_texts(texts: list[str]) -> str:
    """One line a step; given back as ``step_prompts`` it yields the same texts."""
    return "\n".join(join_lines(text) or EMPTY_PROMPT_MARK for text in texts)


def join_prompt(extracted: str, prompt: str) -> str:
    """The text of a step: what was extracted, then the user's own, on one line."""
    prompt = join_lines(prompt)
    if prompt:
        extracted = extracted.rstrip(" .,;，。")
    return ", ".join(text for text in (extracted, prompt) if text)
