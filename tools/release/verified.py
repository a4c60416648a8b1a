"""Write docs/verified.md from the verify.json files in docs/verified/.

Also write into the README how many graphics cards gave equal results.

python -m tools.release.verified    save each verify.json that is attached to an issue as docs/verified/NAME.json first
"""

import argparse
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
REPORTS = "docs/verified"
PAGE = "docs/verified.md"
FORMAT = "chain-of-zoom-verify/1"
EQUAL = "equal"

COMPARED = {
    "step": ("SD3", "SR LoRA", "VAE encoder"),
    "tokens": ("Qwen2.5-VL-3B",),
    "tags": ("RAM", "DAPE"),
}
"""Part that is compared with another implementation -> the models that must be as published."""

README_LINE = re.compile(r"(?<=\*\*Verified with the published weights\*\*: )[^.]+(?=\.)")

HEAD = """# Verified with the published weights

This page lists the reports that people sent; `make verified` writes it. To add a report for your graphics card, run this command in ComfyUI's folder, with the same Python as ComfyUI. It takes about five minutes and downloads nothing. It also works if you have only some of the models:

```
python custom_nodes/chain-of-zoom/tools/verify.py
```

In the folder of the Windows portable: `python_embeded\\python.exe ComfyUI\\custom_nodes\\chain-of-zoom\\tools\\verify.py`. Attach verify.json and verify.png to an issue of the form Verification. verify.json holds versions, hardware, sizes and checksums of the models, verdicts and times, and nothing about you; it is shown before it is written. One part compares a step of this pack with diffusers. It needs diffusers in that Python, and 16 GB of free RAM or GPU memory.

"""

COLUMNS = (
    "Graphics card",
    "System",
    "Pack",
    "ComfyUI",
    *COMPARED,
    "Two steps, s",
    "GPU memory, GiB",
)


def read_reports(root: Path) -> dict[str, dict[str, Any]]:
    """Read the reports by the names of their files.

    Raises:
        ValueError: If a file is no report.
    """
    reports = {}
    for path in sorted((root / REPORTS).glob("*.json")):
        try:
            report = json.loads(path.read_text("utf-8"))
            if report["format"] != FORMAT:
                raise ValueError(f"its format is {report['format']}")
            format_row(report)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path.name}: expected a verify.json ({error})") from error
        reports[path.stem] = report
    return reports


def find_verdict(report: dict[str, Any], part: str) -> str:
    """Return the verdict of a part. It counts only if the models are as published."""
    verdicts = {one["part"]: one["verdict"] for one in report["parts"]}
    published = {one["role"] for one in report["files"] if one["as_published"]}
    if part not in verdicts:
        return "—"
    is_published = published.issuperset(COMPARED[part])
    return verdicts[part] if is_published else f"{verdicts[part]}, with other models"


def is_verified(report: dict[str, Any]) -> bool:
    return any(find_verdict(report, part) == EQUAL for part in COMPARED)


def describe_count(reports: dict[str, dict[str, Any]]) -> str:
    """Say for the README how many cards gave equal results."""
    cards = {report["device"] for report in reports.values() if is_verified(report)}
    if not cards:
        return "by nobody yet"
    return f"on {len(cards)} graphics card{'s' * (len(cards) > 1)}"


def format_row(report: dict[str, Any]) -> str:
    zooms = [part for part in report["parts"] if part["part"] == "zoom"]
    measured = [str(part.get(name, "—")) for part in zooms for name in ("seconds", "card_gib")]
    cells = [
        f"{report['device']}, {report['device_gib']} GiB",
        report["system"],
        report["pack"],
        report["comfyui"],
        *(find_verdict(report, part) for part in COMPARED),
        *(measured or ["—", "—"]),
    ]
    return format_cells(cells)


def format_cells(cells) -> str:
    # The reports come from strangers.
    escaped = (re.sub(r"[\s|]+", " ", str(cell)).replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(escaped)} |"


def format_checksums(reports: dict[str, dict[str, Any]]) -> list[str]:
    """List each checksum of a model as published, with the number of reports that have it."""
    seen: defaultdict[tuple[str, int, str], int] = defaultdict(int)
    for report in reports.values():
        for one in report["files"]:
            for file in one["files"] if one["as_published"] else ():
                seen[one["role"], file["bytes"], file["sha256"]] += 1
    rows = [format_cells([*key, count]) for key, count in sorted(seen.items())]
    return ["| Model | Bytes | sha256 | Reports |", "|---|---:|---|---:|", *rows] if rows else []


def render_page(reports: dict[str, dict[str, Any]]) -> str:
    if not reports:
        return f"{HEAD}Nobody has sent a report yet.\n"
    rows = [format_cells(COLUMNS), "|" + "---|" * len(COLUMNS), *map(format_row, reports.values())]
    return HEAD + "\n".join([*rows, "", *format_checksums(reports)]).rstrip() + "\n"


def main(root: Path = ROOT) -> None:
    try:
        reports = read_reports(root)
    except ValueError as error:
        sys.exit(f"error: {error}")
    (root / PAGE).write_text(render_page(reports), "utf-8")
    readme = root / "README.md"
    readme.write_text(README_LINE.sub(describe_count(reports), readme.read_text("utf-8")), "utf-8")
    print(f"{PAGE} is written from {len(reports)} reports: verified {describe_count(reports)}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    main()
