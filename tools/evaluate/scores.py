"""Collect the scores of a store into arrays, and list which scores are missing and why."""

import csv
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .job import Result, Row
from .metrics import METRICS, Metric

FORMULA_PREFIXES = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""A spreadsheet runs a cell that begins with one of these as a formula (OWASP, CSV injection)."""


@dataclass(frozen=True)
class Scores:
    """The scores of the images for which every arm has a result."""

    arms: tuple[str, ...]
    """The arms that have a result; all arms if none has one."""
    factors: tuple[float, ...]
    metrics: tuple[Metric, ...]
    images: tuple[str, ...]
    values: NDArray[np.float64]
    """(metrics, factors, arms, images); NaN if it was not measured."""
    rows: dict[tuple[str, str, float], Row]
    """(Image, arm, factor) -> row, also for images that are left out."""
    failed: tuple[tuple[str, str, str], ...]
    """(Image, arm, error)."""
    unmade: tuple[tuple[str, str], ...]
    """(Image, arm) without a result so far."""
    missing: tuple[tuple[str, str, int], ...]
    """(Metric, why it is missing, number of results)."""
    waiting: int = 0
    """Number of results that are missing because the last run did not finish."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Images left out of all comparisons, because an arm has no result for them."""
        without = [(image, arm) for image, arm, *_ in (*self.failed, *self.unmade)]
        return tuple(sorted({image for image, arm in without if arm in self.arms}))

    @property
    def failed_arms(self) -> tuple[str, ...]:
        """Arms that failed on every image and are therefore in no comparison."""
        return tuple(sorted({arm for _, arm, _ in self.failed} - set(self.arms)))

    def get_values(self, metric: Metric, factor: float) -> NDArray[np.float64]:
        """Return the values of one metric at one factor, (arms, images)."""
        return self.values[self.metrics.index(metric), self.factors.index(factor)]

    def find_metric(self, *kinds: str, factor: float | None = None) -> Metric | None:
        """Return the first measured metric of the first of these kinds, at this factor if given."""
        for kind in kinds:
            for metric in self.metrics:
                at = self.values[self.metrics.index(metric)]
                if factor is not None:
                    at = at[self.factors.index(factor)]
                if metric.kind == kind and not np.isnan(at).all():
                    return metric
        return None


def gather_scores(
    results: Sequence[Result], order: Sequence[str] = (), asked: Collection[str] = ()
) -> Scores:
    """Collect results into arrays.

    Args:
        results: The results of any arms and images.
        order: The order of the arms; arms that it lacks come last.
        asked: The keys of all results that the last run should have made.

    Raises:
        ValueError: If there is nothing to report.
    """
    if not results:
        raise ValueError("there are no results to report: run python -m tools.evaluate first")
    made = {(result.image, result.arm) for result in results}
    known = [result.arm for result in results]
    works = {result.arm for result in results if result.error is None} or set(known)
    arms = tuple(arm for arm in dict.fromkeys([*order, *known]) if arm in works)
    images = sorted({image for image, _ in made})
    failed = [(r.image, r.arm, r.error) for r in results if r.error is not None]
    unmade = [(image, arm) for image in images for arm in arms if (image, arm) not in made]
    left_out = {image for image, arm, *_ in (*failed, *unmade) if arm in arms}
    rows = {(row.image, row.arm, row.factor): row for r in results for row in r.rows}
    scored = {name for row in rows.values() for name in row.scores}
    metrics = tuple(metric for name, metric in METRICS.items() if name in scored)
    factors = tuple(sorted({factor for *_, factor in rows}))
    complete = tuple(image for image in images if image not in left_out)
    values = np.full((len(metrics), len(factors), len(arms), len(complete)), np.nan)
    for f, factor in enumerate(factors):
        for a, arm in enumerate(arms):
            for i, image in enumerate(complete):
                if row := rows.get((image, arm, factor)):
                    for m, metric in enumerate(metrics):
                        values[m, f, a, i] = row.scores.get(metric.name, np.nan)
    reasons = Counter((name, why) for result in results for name, why in result.missing.items())
    return Scores(
        arms=arms,
        factors=factors,
        metrics=metrics,
        images=complete,
        values=values,
        rows=rows,
        failed=tuple(sorted(failed)),
        unmade=tuple(unmade),
        missing=tuple((name, why, count) for (name, why), count in sorted(reasons.items())),
        waiting=len(set(asked) - {result.key for result in results}),
    )


def write_csv(scores: Scores, path: Path) -> None:
    """Write one line per image, arm and factor, also for images that the table leaves out."""
    # utf-8-sig writes a byte order mark, by which Excel recognizes UTF-8.
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        names = [metric.name for metric in scores.metrics]
        writer.writerow(["image", "arm", "factor", "prompt", "seed", *names])
        arms = {arm: i for i, arm in enumerate(scores.arms)}
        for row in sorted(scores.rows.values(), key=lambda r: (r.image, arms[r.arm], r.factor)):
            factor = int(row.factor) if row.factor.is_integer() else row.factor
            first = [
                _escape_formula(row.image),
                _escape_formula(row.arm),
                factor,
                _escape_formula(row.prompt),
                row.seed,
            ]
            writer.writerow([*first, *(row.scores.get(name) for name in names)])


def _escape_formula(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA_PREFIXES) else text
