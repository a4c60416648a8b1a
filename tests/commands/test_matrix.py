"""The compatibility matrix: what it takes from pytest, and what it writes."""

import re
import sys
from pathlib import Path

import pytest

from tools import host
from tools.release import matrix
from tools.release.matrix import (
    Row,
    find_python,
    format_cells,
    format_notes,
    merge_report,
    run_tests,
)

OWN = "{}.{}".format(*sys.version_info)

TESTS = """
import os
import pytest

def test_passes():
    assert os.environ["COMFYUI_PATH"] == "/some/host"

def test_fails():
    assert "OMP_NUM_THREADS" not in os.environ

@pytest.fixture
def broken():
    raise OSError

def test_cannot_start(broken):
    pass

@pytest.mark.parametrize("i", range(2))
def test_is_left_out(i):
    pytest.skip("needs ComfyUI 0.30, this is 0.24.0")
"""


@pytest.fixture
def result(tmp_path, monkeypatch):
    file = tmp_path / "test_it.py"
    file.write_text(TESTS, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", "utf-8")
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setenv("COMFYUI_PATH", "/another")
    return run_tests(Path(sys.executable), [str(file)], Path("/some/host"))


def test_a_row_is_what_pytest_reports(result):
    assert result.passed == 1
    assert result.failed == ["test_it::test_fails", "test_it::test_cannot_start"]
    assert result.skipped == {"needs ComfyUI 0.30, this is 0.24.0": 2}
    row = Row("ComfyUI 0.24.0", "0.24.0")
    told = format_cells(row, Path(sys.executable), result)
    assert told[:2] == ["ComfyUI 0.24.0", "0.24.0"]
    assert told[2].startswith(f"{OWN}.")
    assert told[4:9] == ["—", matrix.NO_BROWSER_TESTS, "1", "2", "2"]
    assert format_notes(row, result) == (
        "### ComfyUI 0.24.0\n\n- FAILED test_it::test_fails\n- FAILED test_it::test_cannot_start\n"
        "- 2 skipped: needs ComfyUI 0.30, this is 0.24.0\n"
    )


def test_a_row_that_takes_too_long(monkeypatch, tmp_path):
    monkeypatch.setattr(matrix, "TIMEOUT_SECONDS", 0)
    assert run_tests(Path(sys.executable), [str(tmp_path)]) is None
    assert "not done in 0 minutes" in format_cells(Row("a"), Path(sys.executable), None)


def test_a_python_that_is_not_here():
    assert find_python("3.99") is None
    cells = format_cells(Row("Python 3.99", python="3.99"), None, None)
    assert cells[2] == "3.99: not on this machine"
    found = find_python(OWN)
    assert found is None or found.exists()


def test_a_single_row_leaves_the_others():
    names = ["one", "two", "three"]
    rows = {
        "one": ("| one | 0.30.0 | 1 |", "### one\n\n- 2 skipped: a | b\n"),
        "three": ("| three | 0.24.0 | 3 |", "### three\n\n- FAILED x\n"),
    }
    again = merge_report("", names, rows)
    again = merge_report(again, names, {"three": ("| three | 0.24.0 | 4 |", "")})
    again = merge_report(again, names, {"two": ("| two | 0.27.0 | 2 |", "### two\n\n- FAILED y\n")})
    assert again == (
        f"{matrix.HEAD}| one | 0.30.0 | 1 |\n| two | 0.27.0 | 2 |\n| three | 0.24.0 | 4 |\n"
        f"{matrix.NOTES}### one\n\n- 2 skipped: a | b\n\n### two\n\n- FAILED y\n"
    )


def test_the_report_has_every_host_and_python():
    shown = matrix.extract_table(matrix.REPORT.read_text("utf-8"))
    hosts, pythons = zip(*(line.split(" | ")[1:3] for line in shown.splitlines()[2:]), strict=True)
    assert {*hosts} == {*host.COMFYUI_RELEASES}
    assert {re.match(r"3\.\d+", python)[0] for python in pythons} == {*matrix.PYTHONS}


def test_every_supported_host_and_python_has_a_row():
    rows = matrix.list_rows()
    assert {row.version for row in rows} == {"0.27.0", "0.30.0"}
    assert {row.python for row in rows} == {None, "3.10", "3.11", "3.12", "3.13"} - {OWN}
    assert [row.transformers for row in rows].count("4.57") == 1
    assert [row.tests for row in rows].count(matrix.ALL_TESTS) == 1
    for tests in matrix.SUITES.values():
        assert all((matrix.ROOT / path.removeprefix("--ignore=")).exists() for path in tests)
