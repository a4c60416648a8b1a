"""Run the tests that try to break the pack, and write benchmarks/RELIABILITY.md.

python -m tools.release.reliability [--results FOLDER]     FOLDER: report the JUnit files of an earlier run
"""

import argparse
import ast
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import textwrap
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.host import ROOT, host_path, read_comfyui_version

REPORT = ROOT / "benchmarks" / "RELIABILITY.md"
PROPERTY_TESTS = "tests/host/property"
TEST_FILES = [
    "tests/host/test_faults.py",
    "tests/host/test_hostile.py",
    "tests/browser/test_hostile.py",
    "tests/browser/test_two_pages.py",
    "tests/test_static.py",
    "tests/host/test_modes.py",
    "tests/host/test_determinism.py",
    "tests/host/test_versions.py",
    "tests/host/test_contract.py",
    "tests/test_windows.py",
]
"""Test files of the report besides the property tests; a file that does not exist is left out."""

REPORTED_PACKAGES = ["torch", "transformers", "comfyui-frontend-package", "hypothesis"]
PROMPTS_PER_LINE = 20
"""Prompts between two lines of the memory chart."""

MAX_BAR_LENGTH = 40
"""Length of the longest bar."""


@dataclass
class Case:
    """One test with one set of parameters, as pytest reports it."""

    place: str
    """The test's module below tests/, with dots."""
    test: str
    parameters: str
    outcome: str
    """passed, failed or skipped."""
    reason: str
    properties: dict[str, str]

    @property
    def name(self) -> str:
        parameters = f"[{self.parameters}]" if self.parameters else ""
        return f"{self.place}::{self.test}{parameters}".removeprefix("::")

    @property
    def module(self) -> str:
        return f"tests/{self.place.replace('.', '/')}.py"


def run_tests(folder: Path) -> None:
    """Run all tests of the report, a few minutes for each part, and write JUnit files to ``folder``."""
    parts = [part for part in TEST_FILES if (ROOT / part).exists()]
    everything = ["-m", "long or not long"]
    for name, arguments in {
        "parts": [*parts, *everything, "--dist", "loadfile"],
        "properties": [PROPERTY_TESTS, *everything, "--hypothesis-profile=long"],
    }.items():
        line = [sys.executable, "-m", "pytest", *arguments, f"--junitxml={folder / name}.xml"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*line, "-n", "2"], cwd=ROOT, env=environment)


def read_cases(folder: Path) -> Iterator[Case]:
    """Read the JUnit files that pytest wrote to a folder."""
    for path in sorted(folder.glob("*.xml")):
        for entry in ET.parse(path).iter("testcase"):  # noqa: S314 - written by pytest
            test, _, parameters = entry.get("name", "").partition("[")
            outcome, reason = "passed", ""
            for child in entry:
                if child.tag in {"failure", "error"}:
                    outcome, reason = "failed", child.get("message", "")
                elif child.tag == "skipped" and outcome == "passed":
                    outcome, reason = "skipped", child.get("message", "")
            found = {p.get("name", ""): p.get("value", "") for p in entry.iter("property")}
            place = entry.get("classname", "")
            yield Case(place, test, parameters.removesuffix("]"), outcome, reason, found)


def read_title(module: str) -> str:
    """Return the first paragraph of the module's docstring."""
    path = ROOT / module
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) if path.exists() else None
    return escape(text.split("\n\n")[0]).rstrip(".:") if text else module


def to_words(test: str) -> str:
    return re.sub(r"^test_", "", test).replace("_", " ")


def escape(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")


def shorten(parameters: list[str]) -> str:
    return textwrap.shorten(escape("; ".join(parameters)), 300, placeholder=" ...")


def format_table(head: list[str], rows: list[str]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *rows, ""]


OUTCOME_HEADINGS = ["tried", "passed", "failed", "skipped"]


def group_by(cases: list[Case], key: str) -> dict[str, list[Case]]:
    groups = defaultdict(list)
    for case in cases:
        groups[getattr(case, key)].append(case)
    return groups


def count_outcomes(cases: list[Case]) -> str:
    count = Counter(case.outcome for case in cases)
    return f"{len(cases)} | {count['passed']} | {count['failed']} | {count['skipped']}"


def format_summary(cases: list[Case]) -> list[str]:
    groups = group_by(cases, "module").items()
    return format_table(
        ["part", *OUTCOME_HEADINGS],
        [f"| {read_title(name)} | {count_outcomes(own)} |" for name, own in groups],
    )


def format_part(module: str, cases: list[Case]) -> list[str]:
    rows = [
        f"| {to_words(test)} | {count_outcomes(own)} | {shorten([c.parameters for c in own if c.parameters])} |"
        for test, own in group_by(cases, "test").items()
    ]
    lines = [f"## {read_title(module)}", "", f"`{module}`", ""]
    return lines + format_table(["test", *OUTCOME_HEADINGS, "parameters"], rows)


def format_properties(cases: list[Case]) -> list[str]:
    counted = [
        (case, ast.literal_eval(case.properties["cases"]))
        for case in cases
        if "cases" in case.properties
    ]
    if not counted:
        return []
    valid, refused = (sum(counts[key] for _, counts in counted) for key in ("valid", "refused"))
    rows = [
        f"| {case.parameters or to_words(case.test)} | {counts['valid'] + counts['refused']:,} | "
        f"{counts['valid']:,} | {counts['refused']:,} |"
        for case, counts in counted
    ]
    return [
        "## Random inputs of every node",
        "",
        f"{valid + refused:,} cases: {valid:,} gave a valid result, {refused:,} were refused with an error message.",
        "",
        *format_table(["node", "cases", "valid result", "refused"], rows),
    ]


def format_memory(cases: list[Case]) -> list[str]:
    """Format the section with the memory chart of the longest run."""
    curves = [json.loads(c.properties["memory"]) for c in cases if "memory" in c.properties]
    if not curves:
        return []
    sizes = max(curves, key=len)
    chosen = [1, *range(PROMPTS_PER_LINE, len(sizes) + 1, PROMPTS_PER_LINE)]
    most = max(sizes)
    bars = [
        f"{k:4} {sizes[k - 1]:5} MB {'█' * round(MAX_BAR_LENGTH * sizes[k - 1] / most)}"
        for k in chosen
    ]
    change = 100 * (max(sizes[PROMPTS_PER_LINE:]) / sizes[PROMPTS_PER_LINE - 1] - 1)
    return [
        f"## Memory of the server over {len(sizes)} prompts in a row",
        "",
        f"Resident memory after each prompt, each with a new image, target and seed, with the default cache. After the {PROMPTS_PER_LINE}th "
        f"prompt it grew by at most {change:.1f} %.",
        "",
        "```",
        *bars,
        "```",
        "",
    ]


def format_notes(cases: list[Case], outcome: str, heading: str) -> list[str]:
    """List the tests of this outcome, each with its reason."""
    lines = [
        f"- {to_words(case.test)} {escape(case.parameters)}: {escape(case.reason)[:300]}"
        for case in cases
        if case.outcome == outcome
    ]
    return [f"## {heading}", "", *lines, ""] if lines else []


def describe_machine() -> list[str]:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines() if os.name != "nt" else []
    name = next((ln.split(": ")[1] for ln in lines if "model name" in ln), platform.machine())
    versions = [f"{package} {importlib.metadata.version(package)}" for package in REPORTED_PACKAGES]
    return [
        f"{datetime.date.today()}, {name}, {os.cpu_count()} cores, {platform.system()}; Python "
        f"{platform.python_version()}, ComfyUI {read_comfyui_version(host_path())}, {', '.join(versions)}.",
        "",
    ]


def format_report(cases: list[Case]) -> str:
    lines = [
        "# Reliability",
        "",
        "The tests that try to break this pack, and their outcomes. `make reliability` runs them and writes this page.",
        "",
        *describe_machine(),
        *format_summary(cases),
        *format_notes(cases, "failed", "Failed"),
        *format_properties(cases),
        *format_memory(cases),
    ]
    for module, own in group_by(cases, "module").items():
        lines += format_part(module, own)
    return "\n".join([*lines, *format_notes(cases, "skipped", "Not run here")]).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--results", type=Path, help="report this folder of JUnit files and run nothing"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.results or Path(temporary)
        if not options.results:
            run_tests(folder)
        cases = list(read_cases(folder))
    if not cases:
        sys.exit(f"error: {folder} holds no test outcomes")
    REPORT.write_text(format_report(cases), "utf-8")
    failed = sum(case.outcome == "failed" for case in cases)
    print(f"{REPORT.relative_to(ROOT)}: {len(cases)} tests, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
