"""Read people's answers to the blind pairs, and compute how strongly people prefer each arm."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bradley import count_wins, fit_resamples, fit_strengths, group_names
from .report import JUDGEMENT_FILE, KEY_FILE
from .table import CONFIDENCE, escape_markdown, format_factor

CHOICES = ("left", "right", "same")
RESAMPLES = 2000
MAX_NAME_CHARACTERS = 80


@dataclass(frozen=True)
class Answer:
    judge: str
    pair: str
    choice: str
    seconds: float


@dataclass(frozen=True)
class Judgement:
    """The table of people's judgement as text, with notes on how to read it."""

    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def read_answers(out: Path, files: Sequence[Path]) -> Judgement:
    """Read answers.json files and write their table to blind.md and to the file for ``write_report``.

    A file or an answer that cannot be counted is left out, and a note says so.

    Raises:
        ValueError: If there is no key in ``out``, or no answer that counts.
    """
    try:
        key = json.loads((out / KEY_FILE).read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(
            f"there is no {KEY_FILE} in {out}: --blind writes it with the page"
        ) from error
    problems: list[str] = []
    answers = list(_read_files(key, files, problems))
    if not answers:
        raise ValueError("; ".join(["no answer counts", *problems]))
    judged = rank_arms(key, answers, problems)
    (out / "blind.md").write_text(_format_markdown(judged), "utf-8")
    record = asdict(judged) | {"run": key["run"]}
    (out / JUDGEMENT_FILE).write_text(json.dumps(record), "utf-8")
    return judged


def _read_files(
    key: dict[str, Any], files: Sequence[Path], problems: list[str]
) -> Iterator[Answer]:
    known = {pair["id"] for pair in key["pairs"]}
    judges: dict[str, str] = {}
    for path in files:
        try:
            given = json.loads(path.read_text("utf-8"))
            run, who, entries = given["run"], given["judge"], given["answers"]
            if not isinstance(who, str) or not isinstance(entries, list):
                raise TypeError
        except OSError as error:
            problems.append(f"{path.name}: left out, it cannot be read: {error.strerror}")
            continue
        except (ValueError, TypeError, KeyError, RecursionError):
            problems.append(f"{path.name}: left out, it is not a file that the page saved")
            continue
        who = who[:MAX_NAME_CHARACTERS]
        if run != key["run"]:
            problems.append(f"{path.name}: left out, it belongs to another blind.html")
        elif who in judges:
            problems.append(f"{path.name}: left out, {judges[who]} has the same judge's answers")
        else:
            judges[who] = path.name
            yield from _read_entries(path.name, who, entries, known, problems)


def _read_entries(
    name: str, who: str, entries: list[Any], known: set[str], problems: list[str]
) -> Iterator[Answer]:
    seen: set[str] = set()
    bad = {"their pairs are not in the key": 0, "their pairs were answered before": 0, "damaged": 0}
    for entry in entries:
        match entry:
            case {
                "pair": str(pair),
                "answer": str(choice),
                "seconds": int() | float() as seconds,
            } if choice in CHOICES and isfinite(seconds) and seconds >= 0:
                if pair not in known:
                    bad["their pairs are not in the key"] += 1
                elif pair in seen:
                    bad["their pairs were answered before"] += 1
                else:
                    seen.add(pair)
                    yield Answer(who, pair, choice, float(seconds))
            case _:
                bad["damaged"] += 1
    problems.extend(f"{name}: {n} answers left out: {why}" for why, n in bad.items() if n)


def rank_arms(
    key: dict[str, Any], answers: Sequence[Answer], problems: Sequence[str] = ()
) -> Judgement:
    """Make the table of these answers, with the strongest arm first."""
    pairs = {pair["id"]: pair for pair in key["pairs"]}
    names: list[str] = list(key["arms"])
    k = len(names)
    left = np.array([names.index(pairs[a.pair]["left"]) for a in answers])
    right = np.array([names.index(pairs[a.pair]["right"]) for a in answers])
    tie = np.array([a.choice == "same" for a in answers])
    to_right = np.array([a.choice == "right" for a in answers])
    winner, loser = np.where(to_right, right, left), np.where(to_right, left, right)
    factor = np.array([pairs[a.pair]["factor"] for a in answers])
    wins = count_wins(k, winner, loser, tie)
    met = wins + wins.T > 0
    strength = fit_strengths(wins, met)
    judges = [a.judge for a in answers]
    groups = [_number_labels([a.pair for a in answers])]
    if len(set(judges)) > 1:
        groups.append(_number_labels(judges))
    tail = (1 - CONFIDENCE) / 2
    spread = fit_resamples(met, winner, loser, tie, groups, RESAMPLES)
    low, high = np.quantile(spread, (tail, 1 - tail), axis=0)
    factors = sorted(set(factor.tolist()))
    lines = []
    for i in sorted(range(k), key=lambda i: -strength[i]):
        mine = (winner == i) | (loser == i)
        if not mine.any():
            continue
        counts = (~tie & (winner == i), tie & mine, ~tie & (loser == i))
        numbers = [f"{count.sum()}" for count in counts]
        share = [_format_share(mine & (factor == f), winner == i, tie) for f in factors]
        interval = f"[{low[i]:.2f}, {high[i]:.2f}]"
        lines.append((names[i], f"{strength[i]:.2f}", interval, *numbers, *share))
    shares = [f"share at {format_factor(f)}" for f in factors]
    head = ("arm", "strength", f"{CONFIDENCE:.0%} interval", "won", "same", "lost", *shares)
    notes = [*_write_notes(names, wins, met, answers), *problems]
    return Judgement(head, tuple(lines), tuple(notes))


def _number_labels(values: Sequence[str]) -> NDArray[np.int_]:
    return np.unique(np.array(values), return_inverse=True)[1]


def _format_share(mine: NDArray[np.bool_], won: NDArray[np.bool_], tie: NDArray[np.bool_]) -> str:
    if not mine.any():
        return "–"
    points = (mine & won & ~tie).sum() + 0.5 * (mine & tie).sum()
    return f"{points / mine.sum():.0%} of {mine.sum()}"


def _write_notes(
    names: list[str],
    wins: NDArray[np.float64],
    met: NDArray[np.bool_],
    answers: Sequence[Answer],
) -> Iterator[str]:
    judges = len({a.judge for a in answers})
    pairs = len({a.pair for a in answers})
    seconds = np.median([a.seconds for a in answers])
    drawn = (
        "judges and pairs"
        if judges > 1
        else "pairs (of one judge, so the intervals say nothing about other people)"
    )
    yield (
        f"{len(answers)} answers to {pairs} pairs by {judges} {'judges' if judges > 1 else 'judge'}, "
        f"with a median of {seconds:.1f} s. Strengths are those of a Bradley-Terry model: exp of the "
        "difference between two arms is the odds that the first is preferred; their mean is 0. “The "
        "same” counts as half a win for each. Each pair of arms that met also gets half a win per arm, "
        f"so that no strength is infinite. Intervals: bootstrap over {drawn}, {RESAMPLES} resamples."
    )
    parts = [part for part in group_names(met, names) if met[names.index(part[0])].any()]
    if len(parts) > 1:
        listed = "; ".join(", ".join(part) for part in parts)
        yield f"These groups never met, so their strengths cannot be compared: {listed}."
    for part in parts:
        own = [names.index(name) for name in part]
        groups = group_names(wins[np.ix_(own, own)] > 0, part)
        if len(groups) > 1:
            listed = "; ".join(", ".join(group) for group in groups)
            yield (
                "Between these groups every answer went the same way, so only their order is known, "
                f"not their distance: {listed}."
            )
    for name, seen in zip(names, met.any(1), strict=True):
        if not seen:
            yield f"{name} is in none of the answers."


def _format_markdown(judged: Judgement) -> str:
    lines = ["# People's judgement of blind pairs", ""]
    lines += [f"{escape_markdown(note)}\n" for note in judged.notes]
    lines += [f"| {' | '.join(judged.head)} |", "|---|" + "---:|" * (len(judged.head) - 1)]
    lines += [f"| {' | '.join(map(escape_markdown, line))} |" for line in judged.lines]
    return "\n".join(lines) + "\n"
