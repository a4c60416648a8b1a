"""Adapt the rewards to TRL, and log each answer with its rewards to a file."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coz.text.answer import clean_answer

from . import rewards
from .config import Config
from .critic import Judge, Question, fill_missing
from .feedback import Feedback

Reward = Callable[..., list[float | None]]
Columns = dict[str, list]


class Scorer:
    """Make the reward functions of a run. ``functions`` and ``weights`` have the same order.

    ``phase`` (before, train or after) is logged with every answer.
    """

    def __init__(
        self, config: Config, judge: Judge | None, feedback: Feedback | None, log: Path
    ) -> None:
        self.judge = judge
        self.feedback = feedback
        self.log = log
        self.phase = "train"
        self.batch_rewards: dict[str, Sequence[float | None]] = {}
        self.answers: list[str | None] = []
        scorers = {
            "critic": self._score_by_critic,
            "phrase_exclusion": _make_reward_of_each(
                rewards.score_phrase_exclusion, config.phrases
            ),
            "repetition": _make_reward_of_each(rewards.score_repetition, config.ngram),
            "answer_form": _make_reward_of_each(rewards.score_answer_form, config.least_words),
            "preference": self._score_preferences,
            "image_feedback": self._score_image_feedback,
        }
        self.weights = {name: weight for name, weight in config.rewards.items() if weight}
        self.functions = [self._make_trl_reward(name, scorers[name]) for name in self.weights]

    def _make_trl_reward(self, name: str, score: Callable[[list[str], Columns], list]) -> Reward:
        def reward(prompts, completions, completion_ids, **columns) -> list[float | None]:
            texts = [completion[0]["content"] for completion in completions]
            values = self.batch_rewards[name] = score(texts, columns)
            if len(self.batch_rewards) == len(self.functions):
                self._write(texts, columns)
            return values

        reward.__name__ = name
        return reward

    def _score_by_critic(self, texts: list[str], columns: Columns) -> list[float | None]:
        views = zip(columns["pair"], columns["images"], texts, strict=True)
        verdict = self.judge([Question(pair, tuple(images), text) for pair, images, text in views])
        columns["log_metric"]("critic/failed", verdict.failed_share)
        columns["log_metric"]("critic/unreadable", verdict.unreadable_share)
        self.answers = verdict.answers
        return fill_missing(verdict.scores, columns["pair"])

    def _score_preferences(self, texts: list[str], columns: Columns) -> list[float | None]:
        rows = zip(texts, columns["good"], columns["bad"], strict=True)
        return [rewards.score_preference(*row) for row in rows]

    def _score_image_feedback(self, texts: list[str], columns: Columns) -> list[float | None]:
        words = [clean_answer(text) for text in texts]
        views = [images[-1] for images in columns["images"]]
        return fill_missing(self.feedback(columns["pair"], views, words), columns["pair"])

    def _write(self, texts: list[str], columns: Columns) -> None:
        step = columns["trainer_state"].global_step
        with self.log.open("a", encoding="utf-8") as file:
            for i, (pair, text) in enumerate(zip(columns["pair"], texts, strict=True)):
                entry = {name: values[i] for name, values in self.batch_rewards.items()}
                if self.answers:
                    entry["critic_answer"] = self.answers[i]
                line = {"phase": self.phase, "step": step, "pair": pair, "answer": text} | entry
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.batch_rewards, self.answers = {}, []


def _make_reward_of_each(
    score: Callable[[str, Any], float], setting: Any
) -> Callable[[list[str], Columns], list]:
    """Make a reward function of many texts from one of a single text."""
    return lambda texts, columns: [score(text, setting) for text in texts]
