"""Write the report of an evaluation from its store: report.html, table.md and scores.csv."""

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .job import Result
from .metrics import METRICS, Metric
from .pictures import choose_cases
from .plots import Plot, choose_look, draw_curves, draw_scatters
from .scores import Scores, gather_scores, write_csv
from .store import JOB_KEYS_FILE, SETTINGS_FILE, read_results
from .table import (
    NATURALNESS_WARNING,
    Cells,
    format_heading,
    format_markdown,
    make_tables,
    summarize_scores,
    write_notes,
)

KEY_FILE, JUDGEMENT_FILE = "blind_key.json", "blind_result.json"
"""The key of the last blind page, and the table that ``answers`` computed from people's answers."""

SUBSTITUTE_METRIC = METRICS["sharpness"]
NO_NATURALNESS = (
    "No naturalness metric was measured, so the vertical axis is sharpness (the variance of the "
    "Laplacian). It measures fine contrast, not how natural it looks: noise is sharp, too."
)


def write_report(out: Path) -> None:
    """Write report.html, table.md and scores.csv to ``out``, from the store in it.

    Raises:
        ValueError: If there are no results.
    """
    results, settings, scores = read_store(out)
    cells = summarize_scores(scores)
    tables = make_tables(scores, cells)
    write_csv(scores, out / "scores.csv")
    (out / "table.md").write_text(format_markdown(scores, tables), "utf-8")
    shown, unshown_count = choose_cases(out, results, scores)
    page = make_environment().get_template("report.html.jinja")
    text = page.render(
        scores=scores,
        arms=[(arm, *choose_look(i)) for i, arm in enumerate(scores.arms)],
        tables=tables,
        heading=format_heading,
        notes=write_notes(scores),
        naturalness_warning=NATURALNESS_WARNING,
        curves=draw_curves(scores, cells),
        groups=list(_draw_groups(scores, cells)),
        cases=shown,
        unshown_count=unshown_count,
        judged=_read_judgement(out),
        settings=list(_flatten(settings)),
        made=[
            fact
            for fact in _list_facts(results)
            if fact not in settings.get("versions", {}).items()
        ],
        date=datetime.now(timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    (out / "report.html").write_text(text, "utf-8")


def read_store(out: Path) -> tuple[list[Result], dict[str, Any], Scores]:
    """Read the results, settings and scores of a store, without images.

    Raises:
        ValueError: If there are no results.
    """
    results = read_results(out)
    settings = _read_json(out / SETTINGS_FILE)
    return (
        results,
        settings,
        gather_scores(results, settings.get("arms", ()), _read_json(out / JOB_KEYS_FILE)),
    )


def make_environment() -> Environment:
    """Make the template environment, which escapes all inserted texts."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _draw_groups(scores: Scores, cells: Cells) -> Iterator[tuple[Metric, Metric, str, list[Plot]]]:
    """Yield (metric of the horizontal axis, that of the vertical axis, a warning, the plots)."""
    up = scores.find_metric("naturalness")
    warning = "" if up else NO_NATURALNESS
    if up is None and SUBSTITUTE_METRIC in scores.metrics:
        up = SUBSTITUTE_METRIC
    for across in (scores.find_metric("fidelity"), scores.find_metric("consistency")):
        if across and up and (plots := draw_scatters(scores, cells, across, up)):
            yield across, up, warning, plots


def _list_facts(results: list[Result]) -> list[tuple[str, str]]:
    """List the models, versions, seeds and time of the results."""
    seeds = sorted({row.seed for result in results for row in result.rows})
    facts = [("models", ", ".join(sorted({m for r in results for m in r.models})) or "none named")]
    names = sorted({name for result in results for name in result.versions})
    for name in names:
        values = sorted({result.versions[name] for result in results if name in result.versions})
        several = " (the results are of several versions: run it again with an empty folder)"
        facts.append((name, ", ".join(values) + (several if len(values) > 1 else "")))
    many = f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}: see scores.csv" if seeds else "none"
    facts.append(("seeds", ", ".join(map(str, seeds)) if 0 < len(seeds) <= 8 else many))
    facts.append(("time in ComfyUI", f"{sum(result.seconds for result in results):.0f} s"))
    return facts


def _read_judgement(out: Path) -> dict[str, Any]:
    """Read people's judgement; empty if there is a newer blind page."""
    judged, key = _read_json(out / JUDGEMENT_FILE), _read_json(out / KEY_FILE)
    return judged if judged.get("run") == key.get("run") else {}


def _flatten(settings: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{before}{name}: ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield before + name, text


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
