"""Ask the critic, a second vision-language model, to score answers."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import requests
from PIL import Image

from tools.image_file import encode, make_data_url

from .config import Critic
from .rewards import read_critic_score

MAX_WAIT_SECONDS = 30.0
"""Longest pause between two tries."""

SERVER_ERRORS = (OSError, ValueError)


class Question(NamedTuple):
    pair: str
    images: tuple[Image.Image, ...]
    words: str

    @property
    def text(self) -> str:
        # The words are put on one line, so that they cannot fake the line with the score.
        return f"Words: {' '.join(self.words.split())}\nScore (0 to 100):"


class Verdict(NamedTuple):
    """The critic's answer to each question, and the score in it."""

    scores: list[float | None]
    answers: list[str | None]
    """The unchanged answers; None for a question that got none."""

    @property
    def failed_share(self) -> float:
        """Share of the questions that got no answer."""
        return self.answers.count(None) / max(1, len(self.answers))

    @property
    def unreadable_share(self) -> float:
        """Share of the questions whose answer holds no score."""
        return self.scores.count(None) / max(1, len(self.scores)) - self.failed_share


class CriticError(ValueError):
    """The critic cannot be used. The message says why and what to do."""


AskCritic = Callable[[Sequence[Question]], list[str | None]]


class Judge:
    """Ask each question once, and stop the run if the critic gives no scores."""

    def __init__(self, settings: Critic, ask: AskCritic) -> None:
        self.settings = settings
        self.ask = ask
        self.batches_without_score = 0

    def __call__(self, questions: Sequence[Question]) -> Verdict:
        """Return the scores, 0..1. A question without words gets 0 and is not sent to the critic.

        Raises:
            CriticError: If no question was answered, or ``patience`` batches in a row had no score.
        """
        asked = {(q.pair, q.words): q for q in questions if q.words.strip()}
        found = dict(zip(asked, self.ask(list(asked.values())), strict=True))
        if found and not any(answer is not None for answer in found.values()):
            raise CriticError(
                f"the critic at {self.settings.url or self.settings.model} no longer answers: start it "
                "and run again; training continues from the last checkpoint"
            )
        scores = {key: None if a is None else read_critic_score(a) for key, a in found.items()}
        self._stop_after_batches_without_score(scores, found)
        keys = [(q.pair, q.words) for q in questions]
        return Verdict(
            [scores.get(key, 0.0) for key in keys], [found.get(key, "0") for key in keys]
        )

    def _stop_after_batches_without_score(self, scores: dict, found: dict) -> None:
        if any(score is not None for score in scores.values()):
            self.batches_without_score = 0
        elif scores:
            self.batches_without_score += 1
        if self.batches_without_score >= self.settings.patience:
            last = next(answer for answer in reversed(found.values()) if answer is not None)
            raise CriticError(
                f"the critic gave no score in {self.batches_without_score} batches, but answers such as {last[:80]!r}: use "
                "another critic.model, or a critic.instruction that asks for one number from 0 to 100"
            )


def fill_missing(scores: Sequence[float | None], pairs: Sequence[str]) -> list[float | None]:
    """Replace missing scores by the mean score of the same pair, or of all if that has none.

    A score equal to the mean does not change the policy. A missing one would make the answer count as one
    of the worst, because TRL sums only the scores that exist. All stay None if there is no score.
    """
    known = [score for score in scores if score is not None]
    result: list[float | None] = []
    for score, pair in zip(scores, pairs, strict=True):
        others = [s for s, p in zip(scores, pairs, strict=True) if p == pair and s is not None]
        others = others or known
        result.append(score if score is not None or not others else sum(others) / len(others))
    return result


def make_judge(settings: Critic) -> Judge:
    """Make a judge whose critic can be used: a loaded model, or a server that has answered.

    Raises:
        CriticError: If the critic cannot be used.
    """
    if not settings.url:
        return Judge(settings, make_local_asker(settings))
    ask = make_server_asker(settings)
    blank = Image.new("RGB", (56, 56), "gray")
    try:
        _request(settings, Question("", (blank, blank), "plain gray"))
    except SERVER_ERRORS as error:
        raise CriticError(
            f"the critic at {settings.url} does not answer ({_explain(error)}): start it, or name another "
            "critic.url"
        ) from error
    return Judge(settings, ask)


def make_server_asker(settings: Critic) -> AskCritic:
    def answer(question: Question) -> str | None:
        wait = 1.0
        for attempt in range(settings.tries):
            try:
                return _request(settings, question)
            except SERVER_ERRORS:
                if attempt + 1 < settings.tries:
                    time.sleep(wait)
                    wait = min(2 * wait, MAX_WAIT_SECONDS)
        return None

    def ask(questions: Sequence[Question]) -> list[str | None]:
        with ThreadPoolExecutor(settings.at_once) as pool:
            return list(pool.map(answer, questions))

    return ask


def _request(settings: Critic, question: Question) -> str:
    files = [encode(image.convert("RGB"), "jpeg", quality=95) for image in question.images]
    images = [{"type": "image_url", "image_url": {"url": make_data_url("jpeg", f)}} for f in files]
    body = {
        "model": settings.model,
        "messages": [
            {"role": "system", "content": settings.instruction},
            {"role": "user", "content": [*images, {"type": "text", "text": question.text}]},
        ],
        "max_tokens": settings.max_tokens,
        "temperature": 0,
    }
    key = os.environ.get(settings.key_variable)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = settings.url.rstrip("/") + "/chat/completions"
    response = requests.post(address, json=body, headers=headers, timeout=settings.timeout)
    response.raise_for_status()
    answer = response.json()
    try:
        text = answer["choices"][0]["message"]["content"] or ""
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"the response is no chat completion: {str(answer)[:200]}") from error
    if not isinstance(text, str):
        raise ValueError(f"the response holds no text: {str(answer)[:200]}")
    return text


def _explain(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        answer = error.response
        return f"{answer.status_code} {answer.reason}: {answer.text[:200].strip()}"
    if isinstance(error, requests.ConnectionError):  # its message ends with the cause
        return str(error).rpartition(": ")[2].strip("')\"")
    return str(error)


def make_local_asker(settings: Critic) -> AskCritic:
    """Load a transformers model into this process, on this process's GPU if there is one."""
    from .vlm import load_vlm

    try:
        ask_vlm = load_vlm(settings.model, settings.instruction, settings.max_tokens)
    except ValueError as error:
        raise CriticError(f"the critic {settings.model} cannot be loaded: {error}") from error

    def ask(questions: Sequence[Question]) -> list[str | None]:
        answers: list[str | None] = []
        for start in range(0, len(questions), settings.at_once):
            batch = questions[start : start + settings.at_once]
            answers += [text for text, _ in ask_vlm([(*q.images, q.text) for q in batch])]
        return answers

    return ask
