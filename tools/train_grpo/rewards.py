"""What a prompt is worth when the prompt extractor is trained: rewards of GRPO, on strings alone.

R = w_critic R_critic + w_phrase R_phrase + w_rep R_rep (paper, Eq. 10), and guards against what such
a sum does not see: an answer of two words offends against none of its terms, nor does one in Chinese.
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
    "image_feedback": 1.0,
}
"""Of the sum. The first three: paper, Eq. 10. The others are ours: as strong as the critic where an
answer is of no use, half of it for words that people marked."""

NGRAM = 3
"""Words. Source: ms-swift v3.4.0, swift/plugin/orm.py, RepetitionPenalty, whose defaults the
published adapter bears."""

LEAST_WORDS = 4
"""Of an answer. A published re-implementation saw its answers shrink to almost nothing until it asked
for eight tokens, which is about four words and their commas."""

FEEDBACK_SPREAD = 1.0
"""The gain in the quality measure's own units that is worth tanh(1) = 0.76."""

STATED_SCALE = re.compile(
    r"(?<![\w.,-])(\d+(?:\.\d+)?)\s*(?:/|out\s+of)\s*(\d+)(?![\w]|\.\d)", re.I
)
ASKED_SCALE = re.compile(r"\(?(?<![\w.])[01]\s*(?:to|[-\u2013\u2014])\s*100(?![\w]|\.\d)\)?", re.I)
NAMED_SCORE = re.compile(
    r"\b(?:score|rating|grade)\b[^\w-]{0,4}(?:(?:is|of)\W?[^\w-]{0,3})?(-?\d+(?:\.\d+)?)(?![\w]|[.,]\d)"
    r"(?!\s*(?:to|[-\u2013\u2014])\s*\d)",
    re.I,
)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")
SCALES = {5.0, 10.0, 100.0}


def critic_score(answer: str) -> float | None:
    """What a critic who was asked for 0 to 100 wrote, as 0..1; None where it cannot be told.

    Taken is a number with its scale ("87/100", "8.5 out of 10"), else the one behind the word score
    or rating, else the only number there is. The last of several of the first two counts. "0 to 100"
    is the question said again. Never guessed: any other range, a number beyond 100, or a lone
    fraction below 1, which may mean 0.9 of 1 or of 100.
    """
    text = answer.rpartition("</think>")[2]
    if stated := STATED_SCALE.findall(text):
        value, scale = map(float, stated[-1])
        return value / scale if scale in SCALES and value <= scale else None
    text = ASKED_SCALE.sub("", text)
    numbers = NAMED_SCORE.findall(text)[-1:] or NUMBER.findall(text)
    if len(numbers) != 1:
        return None
    value = float(numbers[0])
    return value / 100 if 1 <= value <= 100 or value == 0 else None


def phrase_exclusion(text: str, phrases: Sequence[str] = EXCLUDED_PHRASES) -> float:
    """1.0 if no phrase is in the text (``build_phrase_pattern``, in any case), else 0.0.

    Source: paper, phrase-exclusion reward.
    """
    pattern = build_phrase_pattern(phrases)
    return 0.0 if pattern and re.search(pattern, text, re.IGNORECASE) else 1.0


def repetition(text: str, ngram: int = NGRAM) -> float:
    """0.0 if no run of ``ngram`` words occurs twice, down to -1.0 the more of them do.

    Fewer words than that are no repetition.

    Source: ms-swift v3.4.0, swift/plugin/orm.py, RepetitionPenalty; Yeo et al. 2502.03373.
    """
    words = text.lower().split()
    runs = list(zip(*(words[start:] for start in range(ngram)), strict=False))
    return len(set(runs)) / len(runs) - 1 if runs else 0.0


def answer_form(text: str, least_words: int = LEAST_WORDS) -> float:
    """0.0 for an answer that a text encoder can use, down to -1.0.

    The worse of two: the share of ``least_words`` that is missing, and the share of its letters that
    are not Latin.
    """
    words = re.findall(r"\w+", text)
    missing = max(0.0, 1 - len(words) / least_words) if least_words > 0 else 0.0
    if text.isascii():
        return -missing
    letters = [letter for letter in text if letter.isalpha()]
    foreign = sum(not _is_latin(letter) for letter in letters) / max(1, len(letters))
    return -max(missing, foreign)


def preference(text: str, good: Iterable[str], bad: Iterable[str]) -> float | None:
    """How much nearer a text is to what people marked good than to what they marked bad, -1..1.

    Nearness is the F1 of the two sets of words; that of the nearest counts. None where nothing is
    marked: the view says nothing about any text.
    """
    words = _words(text)
    liked = [_overlap(words, _words(other)) for other in good]
    disliked = [_overlap(words, _words(other)) for other in bad]
    if not liked and not disliked:
        return None
    return max(liked, default=0.0) - max(disliked, default=0.0)


def image_feedback(
    quality: float, null_quality: float, spread: float = FEEDBACK_SPREAD
) -> float | None:
    """What a prompt did to the picture: -1..1, 0.0 where it is as good as with an empty prompt.

    None where a quality is not a finite number.

    Args:
        quality: of the result under the prompt; higher is better.
        null_quality: of the result under the empty prompt, in the same units.
        spread: A gain of so many units is worth 0.76.
    """
    gain = quality - null_quality
    return tanh(gain / spread) if isfinite(gain) else None


@lru_cache(maxsize=4096)
def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith(
        ("LATIN", "FEMININE", "MASC")
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return 2 * len(first & second) / max(1, len(first) + len(second))
