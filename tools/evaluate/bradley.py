"""The Bradley-Terry model: how strong each of several is, from who was preferred to whom."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

HALF = 0.5
"""Win that each side of every two that met gets beside its own, so that who always won stays finite.

For two, this is the log-odds with 1/2 added to each count (Haldane 1956, Anscombe 1956).
"""
STEPS = 100
CLOSE = 1e-10


def strengths(wins: NDArray[np.float64], met: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-odds scale, with mean 0 among those that are connected by meetings.

    Args:
        wins: (..., k, k), how often the row was preferred to the column; a tie is half a win each.
        met: (k, k), who met at all; symmetric.

    Returns:
        (..., k): of two, exp of the difference is the odds to be preferred.
    """
    wins = wins + HALF * met
    games = wins + wins.swapaxes(-1, -2)
    k = wins.shape[-1]
    _, part = connected_components(met, directed=False)
    same = (part[:, None] == part).astype(float)  # fixes the mean of each part
    theta = np.zeros(wins.shape[:-1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(theta[..., None, :] - theta[..., :, None]))
        slope = (wins - games * chance).sum(-1)
        weight = games * chance * (1 - chance)
        curve = np.eye(k) * weight.sum(-1)[..., None] - weight + same
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        theta += np.clip(step, -1, 1)  # a whole Newton step may overshoot far from the top
        if np.abs(step).max() < CLOSE:
            break
    return theta


def resampled(
    met: NDArray[np.bool_],
    winner: NDArray[np.int_],
    loser: NDArray[np.int_],
    tie: NDArray[np.bool_],
    groups: list[NDArray[np.int_]],
    count: int,
) -> NDArray[np.float64]:
    """Strengths of resamples, (count, k): each group of answers is drawn anew by its members.

    Args:
        met: Who met, in all answers.
        winner: (answers,) with ``loser``; of a tie, either.
        loser: See ``winner``.
        tie: (answers,).
        groups: A label an answer, 0 and up, such as its judge or its pair. An answer weighs as
            often as its members of all groups were drawn (Owen 2007, the pigeonhole bootstrap).
        count: How many resamples.
    """
    k = len(met)
    chance = np.random.default_rng(0)
    weights = np.ones((count, len(winner)))
    for labels in groups:
        members = int(labels.max()) + 1
        drawn = chance.multinomial(members, np.full(members, 1 / members), size=count)
        weights *= drawn[:, labels]
    return strengths((weights @ _table(k, winner, loser, tie)).reshape(count, k, k), met)


def wins_of(
    k: int, winner: NDArray[np.int_], loser: NDArray[np.int_], tie: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(k, k), a tie as half a win each."""
    return _table(k, winner, loser, tie).sum(0).reshape(k, k)


def _table(
    k: int, winner: NDArray[np.int_], loser: NDArray[np.int_], tie: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(answers, k * k)."""
    table = np.zeros((len(winner), k, k))
    every = np.arange(len(winner))
    table[every, winner, loser] = np.where(tie, 0.5, 1)
    table[every, loser, winner] = np.where(tie, 0.5, 0)
    return table.reshape(len(winner), k * k)


def groups_of(won: NDArray[np.bool_], names: list[str]) -> list[list[str]]:
    """The names in groups between which no wins go both ways.

    Of who met: groups that never met. Of who won: groups between which all meetings went one way,
    so that their distance has no true estimate.
    """
    count, part = connected_components(won, connection="strong")
    return [[name for name, p in zip(names, part, strict=True) if p == i] for i in range(count)]
