"""Clean up the answer of a vision-language model for a text encoder."""

import re
from collections.abc import Iterable, Iterator
from unicodedata import category

SPECIAL_TOKEN = re.compile(r"<[|/]?\w+[|/]?>")

LIST_MARKER = re.compile(r"^(?:[-*+•·–]|#{1,6}|\d{1,2}[.)])\s+")

CLAUSE = re.compile(r"(.*?)([,;:.!?]+(?:\s+|$)|[，、。；：！？]\s*|$)")
"""A clause, and the punctuation and white space that end it."""

IMAGE_NOUNS = (
    "image",
    "picture",
    "photo",
    "photograph",
    "view",
    "version",
    "portion",
    "part",
    "section",
)

EXCLUDED_PHRASES = (
    *(f"{place} {noun}" for place in ("first", "second", "1st", "2nd") for noun in IMAGE_NOUNS),
    *("two images", "both images", "previous image"),
    *("zoom-in", "zooms in", "zoomed-in", "zooming in"),
)
"""Phrases about the two images instead of their content. They are removed from an answer. The paper's
training of the prompt LoRA penalizes them; it lists "first image", "second image" "and the like", and the
full list is not public."""


def build_phrase_pattern(phrases: Iterable[str]) -> str:
    """Build a pattern for any of the phrases as whole words, also in the plural.

    Spaces and hyphens match each other, in any number. Without phrases the pattern is "".
    """
    space = r"[-\u2010\u2011\s]+"
    parts = [re.split(space, phrase.strip()) for phrase in phrases]
    written = "|".join(space.join(map(re.escape, words)) for words in parts if any(words))
    return rf"(?<!\w)(?:{written})s?(?!\w)" if written else ""


SHOWING_VERB = (
    r"(?:is|are|was|were|shows?|showing|depicts?|depicting|contains?|containing|features?|"
    r"featuring|displays?|displaying|focuses|focusing|appears? to (?:be|show)|seems? to (?:be|show))"
)
PHRASE_PATTERN = re.compile(
    r"(?:\b(?:in|of|from|within|on|by|as|for|with|to)\s+)?(?:\b(?:the|this|that|a|an|both)\s+)?"
    rf"{build_phrase_pattern(EXCLUDED_PHRASES)}(?:\s+{build_phrase_pattern(IMAGE_NOUNS)})?"
    r"(?:\s+(?:of|on|on to|into)\b)?",
    re.IGNORECASE,
)
"""One of the phrases with the articles and prepositions around it."""

LEFTOVER_OPENING = re.compile(
    rf"^(?:(?:and|but|which|that|it|this|{SHOWING_VERB})\b\s*)+(?:of\b\s*|on\b\s*)?", re.IGNORECASE
)
"""Words at the start of a clause that mean nothing after a phrase was removed before them."""

EMPTY_CLAUSE = re.compile(
    rf"(?:\s|\b(?:a|an|the|of|in|on|as|and|it|that|which|{SHOWING_VERB})\b)*", re.IGNORECASE
)
"""A clause of function words alone, without content."""

REPEATED_WORDS = re.compile(r"\b(\w+(?:\W+\w+){0,7}?)(?:\W+\1\b){2,}", re.IGNORECASE)
"""Up to eight words that occur at least three times in a row."""

REPEATED_CHARACTERS = re.compile(r"([^\s\d]{1,16}?)\1{5,}")
"""Up to 16 characters that occur at least six times in a row."""

SPACED_SCRIPT_LETTER = (
    r"[^\W\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
    r"\U00020000-\U0003ffff]"
)
"""A letter of a script that separates words by spaces: not Thai, Lao, Burmese, Khmer, Chinese, Japanese."""

LAST_WORD = re.compile(rf"(?:{SPACED_SCRIPT_LETTER}+[-'’])*{SPACED_SCRIPT_LETTER}*$")


def clean_answer(answer: str, cut: bool = False) -> str:
    """Turn a vision-language model's answer into one line; "" if nothing is left.

    This removes thoughts, special tokens, list markers, control characters, the phrases of
    ``EXCLUDED_PHRASES`` and repetitions. All other words stay as they are.

    Args:
        answer: The answer as the tokenizer decodes it.
        cut: Whether the token limit ended the answer, so that its last word may be incomplete.
    """
    text = answer.rpartition("</think>")[2].partition("<think>")[0]
    text = SPECIAL_TOKEN.sub(" ", text)
    if cut:
        text = _remove_last_word(text)
    text = "".join(c for c in text if c.isspace() or _is_text(c)).replace("**", "")
    lines = (LIST_MARKER.sub("", " ".join(line.split())) for line in text.splitlines())
    text = "\n".join(line for line in lines if line)
    text = re.sub(r"(?<=[^,;:.!?，、。；：！？])\n", ", ", text).replace("\n", " ")
    text = _remove_repeats(_remove_phrases(text))
    text = re.sub(r"(?:\s*,)+", ",", text)
    text = " ".join(text.split()).strip(" ,;，、；")
    return text if re.search(r"\w", text) else ""


def _is_text(character: str) -> bool:
    # Cf holds direction marks and similar characters, but some scripts need the two joiners.
    kind = category(character)
    return character in "\u200c\u200d" or (
        kind not in {"Cc", "Cf", "Co", "Cs"} and character != "\ufffd"
    )


def _remove_last_word(text: str) -> str:
    """Remove the last word, which may be incomplete, unless it is the only one."""
    text = text.rstrip("\ufffd")
    shorter = LAST_WORD.sub("", text)
    return shorter if re.search(r"\w", shorter) else text


def _split_clauses(text: str) -> Iterator[tuple[str, str]]:
    """Split a text at its punctuation; yield each clause and the punctuation after it."""
    for match in CLAUSE.finditer(text):
        if match[0]:
            yield match[1], match[2]


def _remove_phrases(text: str) -> str:
    """Remove the excluded phrases, and each clause that has no content without them."""
    if not PHRASE_PATTERN.search(text):
        return text
    kept = ""
    dropped = False
    for clause, end in _split_clauses(text):
        rest, removed = PHRASE_PATTERN.subn(" ", clause)
        if removed or dropped:
            rest = LEFTOVER_OPENING.sub("", rest.strip())
        dropped = bool((removed or dropped) and EMPTY_CLAUSE.fullmatch(rest))
        if not dropped:
            kept += rest + end
    return kept


def _remove_repeats(text: str) -> str:
    """Keep the first of repeated characters, words and clauses."""
    for pattern in (REPEATED_CHARACTERS, REPEATED_WORDS):
        for match in list(pattern.finditer(text))[-1:]:
            rest = text[match.end() :].strip(" ,;.!?").casefold()
            if rest and match[1].casefold().startswith(rest):
                text = text[: match.end()]  # the last repetition was cut off
        text = pattern.sub(r"\1", text)
    clauses = list(_split_clauses(text))
    unique: dict[str, str] = {}
    for clause, end in clauses:
        unique.setdefault(clause.strip().casefold(), clause + end)
    *earlier, last = unique or [""]
    if len(unique) < len(clauses) and any(key.startswith(last) for key in earlier):
        del unique[last]
    return "".join(unique.values())
