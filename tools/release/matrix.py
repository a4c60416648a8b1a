"""Run the tests on ComfyUI 0.27 and 0.30, and on 0.30 with other Pythons and an older transformers.

python -m tools.release.matrix                     run all rows (over an hour), write benchmarks/MATRIX.md
python -m tools.release.matrix --select 0.27.0     run only rows whose name contains this, keep the others
python -m tools.release.matrix --list              print the names of the rows

If this machine lacks a Python, its row says so. Every Python except that of .venv, and the older
transformers, gets an environment of its own in .host/.
"""

import argparse
import datetime
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tools import host
from tools.host import (
    HOST_FOLDER,
    LOCK,
    ROOT,
    HostError,
    install_packages,
    list_host_packages,
    python_path,
)
from tools.host.environment import run, venv_python_path

from .reliability import read_cases

REPORT = ROOT / "benchmarks" / "MATRIX.md"

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
OLDER_TRANSFORMERS = "4.57"

TIMEOUT_SECONDS = 5400
"""Time limit of a row; on two free cores the longest row takes ten minutes."""

ALL_TESTS = "all"
NO_BROWSER_TESTS = "all but the browser tests"
TEXT_TESTS = "text and VLM tests"
SUITES = {
    ALL_TESTS: ["tests"],
    NO_BROWSER_TESTS: ["tests", "--ignore=tests/browser"],
    TEXT_TESTS: [
        f"tests/host/test_{name}.py"
        for name in ("qwen", "workflows", "prompt_extractor", "encode", "contract")
    ],
}
"""Suite -> pytest's arguments. The last suite holds the tests in which ComfyUI uses transformers."""

PRINT_VERSIONS = """
from importlib.metadata import version
import platform
print(platform.python_version(), version("transformers"), version("comfyui-frontend-package"))
"""

HEAD = """# Compatibility

The tests on ComfyUI 0.27 and 0.30, Python 3.10 to 3.13 and an older transformers, written by `make matrix`.
Each row but the first changes the version in its name. The lock has an older transformers for Python 3.10.
Tests marked `long` are left out. The browser tests run with two frontends: ComfyUI's own and a newer one.

| Row | ComfyUI | Python | transformers | Frontends | Tests | Passed | Skipped | Failed | Minutes | Day |
| --- | --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | --- |
"""

NOTES = "\n## What was skipped or failed, and why\n\n"


@dataclass
class Row:
    """One environment, and which tests to run in it."""

    name: str
    version: str = host.DEFAULT_VERSION
    """The version of ComfyUI."""
    python: str | None = None
    """The version of Python; None for .venv with its packages."""
    transformers: str | None = None
    tests: str = NO_BROWSER_TESTS

    @property
    def venv(self) -> Path:
        older = f"-transformers-{self.transformers}" if self.transformers else ""
        return HOST_FOLDER / f"python-{self.python or read_venv_python_version()}{older}"


@dataclass
class Result:
    """The outcome of one run of pytest."""

    passed: int
    failed: list[str]
    skipped: Counter[str]
    """Reason -> number of tests."""
    seconds: float


def read_venv_python_version() -> str:
    line = [python_path(), "-c", "import sys; print('{}.{}'.format(*sys.version_info))"]
    return subprocess.check_output(line, encoding="utf-8").strip()


def list_rows() -> list[Row]:
    older = [version for version in host.COMFYUI_RELEASES if version != host.DEFAULT_VERSION]
    return [
        Row(f"ComfyUI {host.DEFAULT_VERSION}", tests=ALL_TESTS),
        *(Row(f"ComfyUI {version}", version) for version in older),
        *(
            Row(f"Python {python}", python=python)
            for python in PYTHONS
            if python != read_venv_python_version()
        ),
        Row(
            f"transformers {OLDER_TRANSFORMERS}", transformers=OLDER_TRANSFORMERS, tests=TEXT_TESTS
        ),
    ]


def find_python(version: str) -> Path | None:
    """Return the interpreter of that version, or None if this machine has none."""
    line = ["py", f"-{version}"] if os.name == "nt" else [f"python{version}"]
    # Without PYENV_VERSION, pyenv's python3.X commands refuse to run.
    environment = {**os.environ, "PYENV_VERSION": version}
    try:
        found = subprocess.run(
            [*line, "-c", "import sys; print(sys.executable)"],
            capture_output=True,
            encoding="utf-8",
            env=environment,
        )
    except FileNotFoundError:
        return None
    return Path(found.stdout.strip()) if found.returncode == 0 else None


def prepare_environment(row: Row) -> Path | None:
    """Install a row's environment and return its Python, or None if this machine lacks it."""
    if row.python is None and row.transformers is None:
        return python_path()
    base = find_python(row.python) if row.python else python_path()
    if base is None:
        return None
    if not venv_python_path(row.venv).exists():
        print(f"{row.name}: making {row.venv.relative_to(ROOT)}", flush=True)
        run([python_path(), "-m", "uv", "venv", "--seed", "--python", base, row.venv])
    packages = list_host_packages(host.host_path(host.DEFAULT_VERSION) / "requirements.txt")
    pins = [f"transformers=={row.transformers}.*"] if row.transformers else []
    install_packages(row.venv, ROOT / LOCK, [*packages, *pins])
    return venv_python_path(row.venv)


def run_tests(python: Path, tests: list[str], comfyui: Path | None = None) -> Result | None:
    """Run the tests; return None if they take longer than ``TIMEOUT_SECONDS``."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("COMFYUI_PATH", None)
    if comfyui:
        environment["COMFYUI_PATH"] = str(comfyui)
    with tempfile.TemporaryDirectory() as folder:
        # Not -m pytest: with this folder first in sys.path, the pack's nodes/ would hide ComfyUI's.
        line = [python.with_name("pytest"), *tests, "-n", "2", "--dist", "loadfile", "-q"]
        line += ["-m", "not long"]
        line += ["-p", "no:cacheprovider", f"--junitxml={folder}/report.xml"]
        started = time.monotonic()
        try:
            subprocess.run(line, cwd=ROOT, env=environment, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        seconds = time.monotonic() - started
        cases = list(read_cases(Path(folder)))
    if not cases:
        raise HostError(f"pytest did not run: {' '.join(map(str, line))}")
    skipped = Counter(case.reason for case in cases if case.outcome == "skipped")
    failed = [case.name for case in cases if case.outcome == "failed"]
    return Result(len(cases) - len(failed) - skipped.total(), failed, skipped, seconds)


def format_cells(row: Row, python: Path | None, result: Result | None) -> list[str]:
    if python is None:
        absent = "not on this machine"
        return [row.name, row.version, f"{row.python}: {absent}", "—", "—", row.tests, *["—"] * 4]
    line = [python, "-c", PRINT_VERSIONS]
    versions = subprocess.check_output(line, encoding="utf-8").split()
    frontend = "—"
    if row.tests == ALL_TESTS:
        frontend = f"{versions.pop()}, {host.NEWEST_FRONTEND.release}"
    first = [row.name, row.version, *versions[:2], frontend, row.tests]
    if result is None:
        return [*first, "—", "—", f"not done in {TIMEOUT_SECONDS // 60} minutes", "—"]
    counts = f"{result.passed:,}", f"{result.skipped.total():,}", f"{len(result.failed):,}"
    return [*first, *counts, f"{result.seconds / 60:.0f}"]


def format_notes(row: Row, result: Result | None) -> str:
    """Write a row's paragraph; it is empty if nothing was skipped and nothing failed."""
    if result is None:
        return ""
    lines = [f"- FAILED {name}" for name in result.failed]
    lines += [f"- {count} skipped: {reason}" for reason, count in result.skipped.most_common()]
    return "\n".join([f"### {row.name}", "", *lines, ""]) if lines else ""


def merge_report(text: str, names: list[str], new: dict[str, tuple[str, str]]) -> str:
    """Put the ``new`` lines and paragraphs into the report ``text``, in the order of ``names``."""
    table, _, rest = text.partition(NOTES)
    lines = {
        found[1]: found[0] for found in re.finditer(r"^\| (.+?) \| \d.*$", table, re.MULTILINE)
    }
    paragraphs = {
        part.splitlines()[0]: f"### {part}" for part in re.split(r"^### ", rest, flags=re.M)[1:]
    }
    lines |= {name: line for name, (line, _) in new.items()}
    paragraphs |= {name: paragraph for name, (_, paragraph) in new.items()}
    kept = [paragraphs[name].strip() for name in names if paragraphs.get(name)]
    table = "\n".join(lines[name] for name in names if name in lines)
    return f"{HEAD}{table}\n{NOTES}" + "\n\n".join(kept) + "\n"


def extract_table(report: str) -> str:
    return report.partition(NOTES)[0][report.index("| ") :]


def write_rows(names: list[str], new: dict[str, tuple[str, str]]) -> None:
    """Write new rows into the report file."""
    report = merge_report(REPORT.read_text("utf-8") if REPORT.exists() else "", names, new)
    REPORT.write_text(report, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--select", action="append", default=[], help="run the rows whose name contains this"
    )
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    options = parser.parse_args()
    all_rows = list_rows()
    names = [row.name for row in all_rows]
    chosen = [
        row for row in all_rows if not options.select or any(s in row.name for s in options.select)
    ]
    if options.list or not chosen:
        print("\n".join(names))
        sys.exit(None if chosen else f"error: no row is named {', '.join(options.select)}")
    day = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    failed = False
    for row in chosen:
        try:
            python = prepare_environment(row)
            comfyui = host.host_path(row.version) if row.version != host.DEFAULT_VERSION else None
            result = run_tests(python, SUITES[row.tests], comfyui) if python else None
            line = f"| {' | '.join([*format_cells(row, python, result), day])} |"
        except HostError as error:
            sys.exit(f"error: {row.name}: {error}")
        failed |= bool(python) and (result is None or bool(result.failed))
        write_rows(names, {row.name: (line, format_notes(row, result))})
    print(extract_table(REPORT.read_text("utf-8")))
    sys.exit(failed)


if __name__ == "__main__":
    main()
