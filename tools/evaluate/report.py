"""Write the report of an evaluation from its store: report.html, table.md and scores.csv."""

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .job import Result
from .metrics import METRICS, Metric
from .pictures import cases
from .plots import Plot, curves, look, scatters
from .scores import Scores, gather, write_csv
from .store import ASKED, SETTINGS, read_results
from .table import GAMEABLE, Cells, heading, markdown, notes, summarise, tables

KEY, JUDGED = "blind_key.json", "blind_result.json"
"""The key of the last blind page, and the table that ``answers`` computed from people's answers."""

STAND_IN = METRICS["sharpness"]
NO_NATURALNESS = (
    "No naturalness metric was measured, so the vertical axis is sharpness (the variance of the "
    "Laplacian). It measures fine contrast, not how natural it looks: noise is sharp, too."
)


def write_report(out: Path) -> None:
    """Write report.html, table.md and scores.csv to ``out``, from the store in it.

    Raises:
        ValueError: If there are no results.
    """
    results, settings, scores = stored(out)
    cells = summarise(scores)
    found = tables(scores, cells)
    write_csv(scores, out / "scores.csv")
    (out / "table.md").write_text(markdown(scores, found), "utf-8")
    shown, no_room = cases(out, results, scores)
    page = environment().get_template("report.html.jinja")
    text = page.render(
        scores=scores,
        arms=[(arm, *look(i)) for i, arm in enumerate(scores.arms)],
        tables=found,
        heading=heading,
        notes=notes(scores),
        gameable=GAMEABLE,
        curves=curves(scores, cells),
        groups=list(_scatters(scores, cells)),
        cases=shown,
        no_room=no_room,
        judged=_judged(out),
        settings=list(_flat(settings)),
        made=[fact for fact in _made(results) if fact not in settings.get("versions", {}).items()],
        date=datetime.now(timezone.utc).astimezone().strftime("%Y-%m-%d %H:%M %Z"),
    )
    (out / "report.html").write_text(text, "utf-8")


def stored(out: Path) -> tuple[list[Result], dict[str, Any], Scores]:
    """Read the results, settings and scores of a store, without images.

    Raises:
        ValueError: If there are no results.
    """
    results = read_results(out)
    settings = _json(out / SETTINGS)
    return results, settings, gather(results, settings.get("arms", ()), _json(out / ASKED))


def environment() -> Environment:
    """Make the template environment, which escapes all inserted texts."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _scatters(scores: Scores, cells: Cells) -> Iterator[tuple[Metric, Metric, str, list[Plot]]]:
    """Yield (metric of the horizontal axis, that of the vertical axis, a warning, the plots)."""
    up = scores.first("naturalness")
    warning = "" if up else NO_NATURALNESS
    if up is None and STAND_IN in scores.metrics:
        up = STAND_IN
    for across in (scores.first("fidelity"), scores.first("consistency")):
        if across and up and (plots := scatters(scores, cells, across, up)):
            yield across, up, warning, plots


def _made(results: list[Result]) -> list[tuple[str, str]]:
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
    facts.append(("time on the host", f"{sum(result.seconds for result in results):.0f} s"))
    return facts


def _judged(out: Path) -> dict[str, Any]:
    """Read people's judgement; empty if there is a newer blind page."""
    judged, key = _json(out / JUDGED), _json(out / KEY)
    return judged if judged.get("run") == key.get("run") else {}


def _flat(settings: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}: ")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield before + name, text


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
