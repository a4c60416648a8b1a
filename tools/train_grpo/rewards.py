"""Compute the rewards of GRPO for a prompt, from texts and numbers only.

R = w_critic R_critic + w_phrase R_phrase + w_rep R_rep (paper, Eq. 10). Further rewards are added here,
because this sum penalizes neither an answer of two words nor one in Chinese.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import isfinite, tanh

from coz.text.answer import EXCLUDED_PHRASES, build_phrase_pattern

WEIGHTS: Mapping[str, float] = {
    "critic": 1.0,
    "phrase_exclusion": 0.5,
    "repetition": 0.5,
    "answer_form": 1.0,
    "preference": 0.5,
    "image_feedback": 0.0,
}
"""Default weights of the sum. The first three are the paper's (Eq. 10). The others are ours: the form of the
answer weighs as much as the critic, preferences half as much. Image feedback is off: it needs a ComfyUI."""

NGRAM_WORDS = 3
"""Length in words of the sequences that are compared. Source: the default of RepetitionPenalty in ms-swift
v3.4.0, swift/plugin/orm.py, with which the published adapter seems to have been trained."""

MIN_WORDS = 4
"""Minimum words of an answer. In a published re-implementation, answers shrank to almost nothing until
it required eight tokens, about four words and their commas."""

FEEDBACK_SPREAD = 1.0
"""The gain, in units of the quality metric, for which the reward is tanh(1) = 0.76."""

NUMBER_WITH_SCALE = re.compile(
    r"(?<![\w.,-])(\d+(?:\.\d+)?)\s*(?:/|out\s+of)\s*(\d+)(?![\w]|\.\d)", re.I
)
REPEATED_RANGE = re.compile(
    r"\(?(?<![\w.])[01]\s*(?:to|[-\u2013\u2014])\s*100(?![\w]|\.\d)\)?", re.I
)
NAMED_SCORE = re.compile(
    r"\b(?:score|rating|grade)\b[^\w-]{0,4}(?:(?:is|of)\W?[^\w-]{0,3})?(-?\d+(?:\.\d+)?)(?![\w]|[.,]\d)"
    r"(?!\s*(?:to|[-\u2013\u2014])\s*\d)",
    re.I,
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")
KNOWN_SCALES = {5.0, 10.0, 100.0}


def read_critic_score(answer: str) -> float | None:
    """Read the score in a critic's answer as 0..1; the critic was asked for 0 to 100.

    A number with its scale ("87/100", "8.5 out of 10") has priority, then a number after the word
    score, rating or grade, then the only number of the answer. If there are several of the first or
    second kind, the last counts. "0 to 100" repeats the question and is ignored. Return None for
    anything ambiguous: another range, a number above 100, or a fraction such as 0.9, whose scale may
    be 1 or 100.
    """
    text = answer.rpartition("</think>")[2]
    if stated := NUMBER_WITH_SCALE.findall(text):
        value, scale = map(float, stated[-1])
        return value / scale if scale in KNOWN_SCALES and value <= scale else None
    text = REPEATED_RANGE.sub("", text)
    numbers = NAMED_SCORE.findall(text)[-1:] or NUMBER.findall(text)
    if len(numbers) != 1:
        return None
    value = float(numbers[0])
    return value / 100 if 1 <= value <= 100 or value == 0 else None


def score_phrase_exclusion(text: str, phrases: Sequence[str] = EXCLUDED_PHRASES) -> float:
    """Return 1.0 if the text holds none of the phrases, in upper or lower case, else 0.0.

    Source: paper, phrase-exclusion reward.
    """
    pattern = build_phrase_pattern(phrases)
    return 0.0 if pattern and re.search(pattern, text, re.IGNORECASE) else 1.0


def score_repetition(text: str, ngram: int = NGRAM_WORDS) -> float:
    """Return 0.0 if no sequence of ``ngram`` words occurs twice, and down to -1.0 if many do.

    A shorter text gets 0.0.

    Source: ms-swift v3.4.0, swift/plugin/orm.py, RepetitionPenalty; Yeo et al. 2502.03373.
    """
    words = text.lower().split()
    sequences = list(zip(*(words[start:] for start in range(ngram)), strict=False))
    return len(set(sequences)) / len(sequences) - 1 if sequences else 0.0


def score_answer_form(text: str, least_words: int = MIN_WORDS) -> float:
    """Return 0.0 for an answer that a text encoder can use, and down to -1.0 otherwise.

    The penalty is the larger of two shares: of the missing words up to ``least_words``, and of the
    letters that are not Latin.
    """
    words = re.findall(r"\w+", text)
    missing = max(0.0, 1 - len(words) / least_words) if least_words > 0 else 0.0
    if text.isascii():
        return -missing
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(not _is_latin(letter) for letter in letters) / max(1, len(letters))
    return -max(missing, foreign)


def score_preference(text: str, good: Iterable[str], bad: Iterable[str]) -> float | None:
    """Return how much closer a text is to the prompts marked good than to those marked bad, -1..1.

    Closeness is the F1 score of the two sets of words; the closest prompt of each kind counts. Return
    None if no prompt is marked.
    """
    words = _split_words(text)
    liked = [_measure_overlap(words, _split_words(other)) for other in good]
    disliked = [_measure_overlap(words, _split_words(other)) for other in bad]
    if not liked and not disliked:
        return None
    return max(liked, default=0.0) - max(disliked, default=0.0)


def score_image_feedback(
    quality: float, null_quality: float, spread: float = FEEDBACK_SPREAD
) -> float | None:
    """Return how much a prompt improved the image, -1..1; 0.0 if it is as good as with the empty prompt.

    Return None if the gain is not a finite number.

    Args:
        quality: Quality of the image with the prompt; higher is better.
        null_quality: Quality of the image with the empty prompt, in the same units.
        spread: The gain for which the reward is tanh(1) = 0.76.
    """
    gain = quality - null_quality
    return tanh(gain / spread) if isfinite(gain) else None


@lru_cache(maxsize=4096)
def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(
        ("LATIN", "FEMININE", "MASC")
    )


def _split_words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _measure_overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return 2 * len(first & second) / max(1, len(first) + len(second))
