"""Compute means with intervals, find the best arm if it is significantly better, and write the tables."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, isinf, log10

import numpy as np
from numpy.typing import NDArray

from .metrics import METRICS, Metric
from .scores import Scores

RESAMPLES = 2000
CONFIDENCE = 0.95
MIN_IMAGES = 6
"""Minimum images to mark a best arm: with fewer, p is above 5 % in a sign test
even if an arm wins on every image."""

KINDS = {
    "fidelity": "Fidelity: against the ground truth",
    "consistency": "Consistency: downscaled, against the frame before and the source",
    "naturalness": "Naturalness: without any reference",
    "property": "Properties of the result",
}
NATURALNESS_WARNING = (
    "A score without a reference can be gamed: a network tuned on it rose from 0.71 to 0.79 in "
    "CLIPIQA while its inventions tripled (OracleZoom, arXiv 2609.06490). "
    "Read it beside fidelity and consistency, never alone."
)
METHOD_NOTE = (
    f"Mean and {CONFIDENCE:.0%} interval of the mean: bootstrap over the images (percentile, "
    f"{RESAMPLES} resamples, fixed seed). Bold marks the best arm at its scale: compared with "
    f"each other arm on the same images, its mean is better in at least {(1 + CONFIDENCE) / 2:.1%} of the "
    f"resamples (paired; not corrected for the number of arms; not with fewer than {MIN_IMAGES} images). "
    "∞ (equal images) is counted separately, not in the mean."
)
FEW_IMAGES_NOTE = f"There are fewer than {MIN_IMAGES} images: intervals are too narrow, and no arm is marked as best."
MARKDOWN_ESCAPES = {ord(mark): f"\\{mark}" for mark in "\\`*_[]#$~"} | {
    ord(mark): f"&#{ord(mark)};" for mark in "<>&|"
}
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


@dataclass(frozen=True)
class Cell:
    """One metric of one arm at one scale."""

    mean: float | None
    low: float | None
    high: float | None
    image_count: int
    infinite_count: int
    best: bool = False


Cells = dict[tuple[str, float, str], Cell]
"""(Metric's name, factor, arm) -> cell, only for what was measured."""


def summarize_scores(scores: Scores) -> Cells:
    """Compute the cell of each metric, scale and arm that was measured."""
    cells: Cells = {}
    for metric in scores.metrics:
        for factor in scores.factors:
            for arm, cell in _compare(metric, scores.get_values(metric, factor)):
                cells[metric.name, factor, scores.arms[arm]] = cell
    return cells


def _compare(metric: Metric, values: NDArray[np.float64]) -> Iterator[tuple[int, Cell]]:
    """Yield a cell for each arm that has the metric, over the images for which all of them have it."""
    arms = np.flatnonzero(~np.isnan(values).all(1))
    values = values[arms]
    values = values[:, ~np.isnan(values).any(0)]
    if not values.size:
        return
    means = _resample_means(values)
    best = _find_best(metric, values) if values.shape[1] >= MIN_IMAGES else None
    tail = (1 - CONFIDENCE) / 2
    for i, arm in enumerate(arms):
        finite = values[i][~np.isinf(values[i])]
        mean = float(finite.mean()) if len(finite) else None
        low = high = None
        if len(finite) > 1:
            own = means[i] if len(finite) == values.shape[1] else _resample_means(finite[None])[0]
            low, high = map(float, np.quantile(own, (tail, 1 - tail)))
        infinite = values.shape[1] - len(finite)
        yield int(arm), Cell(mean, low, high, values.shape[1], infinite, i == best)


def _resample_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return means of resamples, (arms, images) -> (arms, RESAMPLES), with the same images for all arms."""
    count = values.shape[1]
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    return values[:, drawn].mean(-1)


def _find_best(metric: Metric, values: NDArray[np.float64]) -> int | None:
    if metric.better == "neither" or len(values) < 2:
        return None
    values = values if metric.better == "higher" else -values

    def rank(arm: int) -> tuple[int, float]:
        finite = values[arm][~np.isinf(values[arm])]
        return int(np.isposinf(values[arm]).sum()), float(finite.mean()) if len(finite) else 0.0

    best = max(range(len(values)), key=rank)
    others = np.delete(values, best, 0)
    with np.errstate(invalid="ignore"):
        ahead = np.where(values[best] == others, 0.0, values[best] - others)  # 0 also if both are ∞
        wins = (_resample_means(ahead) > 0).mean(1)
    return best if (wins >= (1 + CONFIDENCE) / 2).all() else None


def count_decimals(values: Iterable[float | None]) -> int:
    """Return the number of decimals that shows values of this size with at least three digits."""
    largest = max((abs(v) for v in values if v is not None and not isinf(v)), default=1.0)
    if largest >= 1:
        return 2 if largest < 1000 else 0
    return 3 - ceil(log10(largest)) if largest else 3


def format_factor(factor: float) -> str:
    return f"{factor:g}×"


@dataclass(frozen=True)
class Line:
    """A line of a table, with its cells as text in the order of the table's metrics."""

    factor: str
    arm: str
    cells: tuple[tuple[str, str, bool] | None, ...]
    """(Mean, interval, whether it is the best), or None if it was not measured."""


@dataclass(frozen=True)
class Table:
    kind: str
    title: str
    metrics: tuple[Metric, ...]
    lines: tuple[Line, ...]
    image_counts: str
    """Such as "n = 8" or "n = 7 to 8"."""


def make_tables(scores: Scores, cells: Cells) -> list[Table]:
    """Make a table for each kind of metric, with a line for each scale and arm."""
    tables = []
    for kind, title in KINDS.items():
        metrics = tuple(metric for metric in scores.metrics if metric.kind == kind)
        own = {key: cell for key, cell in cells.items() if METRICS[key[0]].kind == kind}
        if not own:
            continue
        decimals = {
            m.name: count_decimals(c.mean for (name, *_), c in own.items() if name == m.name)
            for m in metrics
        }
        counts = sorted({cell.image_count for cell in own.values()})
        lines = []
        for factor in scores.factors:
            for arm in scores.arms:
                line = [own.get((metric.name, factor, arm)) for metric in metrics]
                if any(line):
                    shown = [
                        cell and _format_cell(cell, decimals[m.name], counts[-1])
                        for m, cell in zip(metrics, line, strict=True)
                    ]
                    lines.append(Line(format_factor(factor), arm, tuple(shown)))
        shown_counts = (
            f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
        )
        tables.append(Table(kind, title, metrics, tuple(lines), shown_counts))
    return tables


def _format_cell(cell: Cell, decimals: int, max_count: int) -> tuple[str, str, bool]:
    """Format a cell, with its number of images if other cells have more."""
    if cell.mean is None:
        return "∞", f"in all {cell.infinite_count}", cell.best
    interval = (
        f"[{cell.low:.{decimals}f}, {cell.high:.{decimals}f}]" if cell.low is not None else ""
    )
    if cell.infinite_count:
        interval += f" and ∞ in {cell.infinite_count}"
    if cell.image_count < max_count:
        interval += f" n = {cell.image_count}"
    return f"{cell.mean:.{decimals}f}", interval.strip(), cell.best


def format_heading(metric: Metric) -> str:
    return f"{metric.title} {ARROWS[metric.better]}".strip()


def format_markdown(scores: Scores, tables: list[Table]) -> str:
    """Write the tables as Markdown, with what is missing and what failed."""
    lines = [
        "# Scores by scale and arm",
        "",
        *(f"{escape_markdown(note)}\n" for note in write_notes(scores)),
    ]
    for table in tables:
        lines += [f"## {table.title}", ""]
        if table.kind == "naturalness":
            lines += [NATURALNESS_WARNING, ""]
        head = ["scale", "arm", *(format_heading(metric) for metric in table.metrics)]
        lines += [_format_row(head), "|---|---|" + "---:|" * len(table.metrics)]
        for line in table.lines:
            cells = [
                "–" if c is None else f"{'**' + c[0] + '**' if c[2] else c[0]} {c[1]}".strip()
                for c in line.cells
            ]
            lines.append(_format_row([line.factor, escape_markdown(line.arm), *cells]))
        lines += ["", f"{table.image_counts}.", ""]
    if scores.missing:
        lines += [
            "## Not measured",
            "",
            "| metric | why, and what to do | results |",
            "|---|---|---|",
        ]
        lines += [
            _format_row([name, escape_markdown(why), str(count)])
            for name, why, count in scores.missing
        ]
        lines.append("")
    if scores.failed:
        lines += ["## Failed", "", "| image | arm | error |", "|---|---|---|"]
        lines += [_format_row(list(map(escape_markdown, failure))) for failure in scores.failed]
        lines.append("")
    lines += ["## What was measured", ""]
    lines += [f"- {format_heading(m)}: {m.note} ({m.library})" for m in scores.metrics]
    return "\n".join(lines) + "\n"


def write_notes(scores: Scores) -> list[str]:
    """Write paragraphs that a reader of the tables must know."""
    paragraphs = [METHOD_NOTE]
    if len(scores.images) < MIN_IMAGES:
        paragraphs.append(FEW_IMAGES_NOTE)
    if scores.waiting:
        paragraphs.append(f"The run is not finished: {scores.waiting} results are missing.")
    if scores.failed_arms:
        paragraphs.append(
            f"Left out because they failed on every image: {', '.join(scores.failed_arms)}."
        )
    if scores.left_out:
        failed = sum(arm in scores.arms for _, arm, _ in scores.failed)
        total = len(scores.images) + len(scores.left_out)
        paragraphs.append(
            f"{len(scores.left_out)} of {total} images are left out of all comparisons, because an arm "
            f"has no result for them: {failed} results failed, {len(scores.unmade)} are missing."
        )
    return paragraphs


def escape_markdown(text: str) -> str:
    """Escape a text so that a Markdown table shows it literally."""
    return " ".join(text.translate(MARKDOWN_ESCAPES).split())


def _format_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
