"""Fit a Bradley-Terry model: estimate the strength of each arm from pairwise preferences."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

EXTRA_WINS = 0.5
"""Extra wins of each arm against every other arm that it met. They keep all strengths finite.

For two arms this is the log-odds with 1/2 added to each count (Haldane 1956, Anscombe 1956).
"""
MAX_ITERATIONS = 100
TOLERANCE = 1e-10


def fit_strengths(wins: NDArray[np.float64], met: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Fit the strengths (log-odds). Their mean is 0 in each group of arms that met, directly or indirectly.

    Args:
        wins: (..., k, k), how often row i was preferred to column j; a tie is half a win for each.
        met: (k, k), symmetric: which arms met at all.

    Returns:
        (..., k). exp(a - b) is the odds that an arm of strength a is preferred to one of strength b.
    """
    wins = wins + EXTRA_WINS * met
    games = wins + wins.swapaxes(-1, -2)
    k = wins.shape[-1]
    _, part = connected_components(met, directed=False)
    same = (part[:, None] == part).astype(float)  # sets the mean of each group to 0
    theta = np.zeros(wins.shape[:-1])
    for _ in range(MAX_ITERATIONS):
        chance = 1 / (1 + np.exp(theta[..., None, :] - theta[..., :, None]))
        slope = (wins - games * chance).sum(-1)
        weight = games * chance * (1 - chance)
        curve = np.eye(k) * weight.sum(-1)[..., None] - weight + same
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        theta += np.clip(step, -1, 1)  # far from the maximum, a full Newton step may overshoot
        if np.abs(step).max() < TOLERANCE:
            break
    return theta


def fit_resamples(
    met: NDArray[np.bool_],
    winner: NDArray[np.int_],
    loser: NDArray[np.int_],
    tie: NDArray[np.bool_],
    groups: list[NDArray[np.int_]],
    count: int,
) -> NDArray[np.float64]:
    """Fit the strengths of bootstrap resamples, (count, k) (Owen 2007, the pigeonhole bootstrap).

    Each grouping, such as the judges, is resampled independently. The weight of an answer is the
    product of how often its judge, its pair and so on were drawn.

    Args:
        met: (k, k), which arms met in all answers.
        winner: (answers,), the index of the arm that was preferred; in a tie either arm.
        loser: (answers,), the index of the other arm.
        tie: (answers,), whether the answer is a tie.
        groups: One array per grouping: (answers,), the number of the answer's judge or pair from 0.
        count: The number of resamples.
    """
    k = len(met)
    generator = np.random.default_rng(0)
    weights = np.ones((count, len(winner)))
    for labels in groups:
        members = int(labels.max()) + 1
        drawn = generator.multinomial(members, np.full(members, 1 / members), size=count)
        weights *= drawn[:, labels]
    return fit_strengths(
        (weights @ _tabulate_wins(k, winner, loser, tie)).reshape(count, k, k), met
    )


def count_wins(
    k: int, winner: NDArray[np.int_], loser: NDArray[np.int_], tie: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Count the wins, (k, k); a tie is half a win for each."""
    return _tabulate_wins(k, winner, loser, tie).sum(0).reshape(k, k)


def _tabulate_wins(
    k: int, winner: NDArray[np.int_], loser: NDArray[np.int_], tie: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the wins of each answer, (answers, k * k)."""
    table = np.zeros((len(winner), k, k))
    every = np.arange(len(winner))
    table[every, winner, loser] = np.where(tie, 0.5, 1)
    table[every, loser, winner] = np.where(tie, 0.5, 0)
    return table.reshape(len(winner), k * k)


def group_names(edges: NDArray[np.bool_], names: list[str]) -> list[list[str]]:
    """Group the names so that between two groups edges go in at most one direction.

    If ``edges`` states which arms met, no arm of a group met an arm of another group. If it states which
    arm won against which, all answers between two groups went the same way, so that their distance
    cannot be estimated.

    Args:
        edges: (k, k), whether the arm of the row met the arm of the column, or whether it won against it.
        names: The names of the k arms.
    """
    count, part = connected_components(edges, connection="strong")
    return [[name for name, p in zip(names, part, strict=True) if p == i] for i in range(count)]
