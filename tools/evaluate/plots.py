"""Draw the report's plots as SVG in the colors of the page around them."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .metrics import Metric
from .scores import Scores
from .table import ARROWS, Cell, Cells, format_factor, format_heading

INK, FAINT = "#010203", "#040506"
PLACEHOLDER_COLORS = tuple(f"#0a0b{i:02x}" for i in range(8))
"""Unique placeholder colors, which ``_to_svg`` replaces by the page's CSS variables."""
VARIABLES = {INK: "var(--ink)", FAINT: "var(--rule)"} | {
    color: f"var(--arm-{i})" for i, color in enumerate(PLACEHOLDER_COLORS)
}
MARKER_PAIRS = tuple(zip("os^DvPX*", "●■▲◆▼✚✖★", strict=True))
"""Matplotlib's name of each marker, and the character that looks like it."""

STYLE = {
    "svg.fonttype": "none",  # text in the page's font, which can be searched
    "svg.hashsalt": "",  # so that equal plots give equal files
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": FAINT,
    "grid.linewidth": 0.5,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
}
SIZE_INCHES = 3.3, 2.4
"""Width and height in inches; the page scales the plot."""
BAND_ALPHA = 0.16


@dataclass(frozen=True)
class Plot:
    svg: str
    note: str = ""


def choose_look(arm: int) -> tuple[int, str]:
    """Return the number of the arm's color, and its marker as a character."""
    return arm % len(PLACEHOLDER_COLORS), _choose_marker(arm)[1]


def _choose_marker(arm: int) -> tuple[str, str]:
    return MARKER_PAIRS[(arm + arm // len(PLACEHOLDER_COLORS)) % len(MARKER_PAIRS)]


def draw_curves(scores: Scores, cells: Cells) -> list[Plot]:
    """Plot score against scale, one plot per metric."""
    return [_draw_curve(scores, cells, metric) for metric in scores.metrics]


def _draw_curve(scores: Scores, cells: Cells, metric: Metric) -> Plot:
    with mpl.rc_context(STYLE):
        figure = Figure(SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set_title(format_heading(metric))
        descriptions = []
        for i, arm in enumerate(scores.arms):
            cell = [cells.get((metric.name, factor, arm)) for factor in scores.factors]
            drawn = [(x, c) for x, c in enumerate(cell) if c and c.mean is not None]
            if not drawn:
                continue
            _draw_line(axes, i, drawn)
            means = (f"{c.mean:.4g} at {format_factor(scores.factors[x])}" for x, c in drawn)
            descriptions.append(f"{arm}: {', '.join(means)}")
        axes.set_xticks(range(len(scores.factors)), list(map(format_factor, scores.factors)))
        axes.set_xlim(-0.3, len(scores.factors) - 0.7)
        axes.margins(y=0.12)
        note = _write_note(scores, cells, metric, scores.factors)
        return Plot(
            _to_svg(figure, f"{metric.title} against scale. {'; '.join(descriptions)}"), note
        )


def _write_note(scores: Scores, cells: Cells, metric: Metric, factors: Sequence[float]) -> str:
    found = [(arm, cells.get((metric.name, f, arm))) for arm in scores.arms for f in factors]
    infinite = dict.fromkeys(arm for arm, cell in found if cell and cell.infinite_count)
    return f"∞ is not drawn: {', '.join(infinite)}." if infinite else ""


def _draw_line(axes: Axes, arm: int, drawn: Sequence[tuple[int, Cell]]) -> None:
    color, marker = PLACEHOLDER_COLORS[arm % len(PLACEHOLDER_COLORS)], _choose_marker(arm)[0]
    xs, means = [x for x, _ in drawn], [c.mean for _, c in drawn]
    axes.plot(xs, means, color=color, marker=marker, zorder=3)
    bands = [(x, c.low, c.high) for x, c in drawn if c.low is not None]
    if len(bands) > 1:
        axes.fill_between(*zip(*bands, strict=True), color=color, alpha=BAND_ALPHA, linewidth=0)
    elif bands:
        axes.vlines(*zip(*bands, strict=True), color=color, linewidth=1)


def draw_scatters(scores: Scores, cells: Cells, across: Metric, up: Metric) -> list[Plot]:
    """Plot one metric against another, one plot per scale; better is to the right and up."""
    plots = [_draw_scatter(scores, cells, factor, across, up) for factor in scores.factors]
    return [plot for plot in plots if plot]


def _draw_scatter(
    scores: Scores, cells: Cells, factor: float, across: Metric, up: Metric
) -> Plot | None:
    with mpl.rc_context(STYLE | {"axes.grid.axis": "both"}):
        figure = Figure(SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        axes.set_title(format_factor(factor))
        descriptions = []
        for i, arm in enumerate(scores.arms):
            x, y = (cells.get((metric.name, factor, arm)) for metric in (across, up))
            if x is None or y is None or x.mean is None or y.mean is None:
                continue
            color, marker = PLACEHOLDER_COLORS[i % len(PLACEHOLDER_COLORS)], _choose_marker(i)[0]
            if x.low is not None:
                axes.hlines(y.mean, x.low, x.high, color=color, linewidth=1)
            if y.low is not None:
                axes.vlines(x.mean, y.low, y.high, color=color, linewidth=1)
            axes.plot(x.mean, y.mean, color=color, marker=marker, markersize=7, zorder=3)
            descriptions.append(f"{arm}: {x.mean:.4g} and {y.mean:.4g}")
        if not descriptions:
            return None
        axes.set_xlabel(_label_axis(across))
        axes.set_ylabel(_label_axis(up))
        axes.margins(0.12)
        if across.better == "lower":
            axes.invert_xaxis()
        if up.better == "lower":
            axes.invert_yaxis()
        note = _write_note(scores, cells, across, [factor])
        text = f"{up.title} against {across.title} at {format_factor(factor)}. {'; '.join(descriptions)}"
        return Plot(_to_svg(figure, text), note)


def _label_axis(metric: Metric) -> str:
    # The arrow says which numbers are better; the axes put them to the right and up.
    return metric.title if metric.better == "neither" else f"{metric.title} {ARROWS[metric.better]}"


def _to_svg(figure: Figure, text: str) -> str:
    file = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    # An id may occur only once in the page. The ids in <defs> are unique: they are hashes.
    svg = svg.replace("<g id=", "<g data-part=")
    svg = re.sub(r"#0[14a]0[25b]\w\w", lambda m: VARIABLES.get(m[0], m[0]), svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(text)}" ', 1)
