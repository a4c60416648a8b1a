"""The page about what was tried, from what pytest says of tests that are run here."""

import subprocess
import sys

import pytest

from tools.release import reliability

TESTS = '''"""Pots and pans: what they hold."""
import pytest

@pytest.mark.parametrize("what", ["soup", "a|b <b>"])
def test_a_pot_holds(what):
    assert what == "soup"

def test_a_pan_is_here():
    pytest.skip("there is no stove")

@pytest.mark.parametrize("name", ["CoZPot"])
def test_any_input(name, record_property):
    record_property("cases", {"valid": 1200, "refused": 34})

def test_memory(record_property):
    record_property("memory", [100] * 20 + [104] * 20)
'''


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(reliability, "ROOT", tmp_path)
    (tmp_path / "tests" / "host").mkdir(parents=True)
    (tmp_path / "tests" / "host" / "test_pots.py").write_text(TESTS, "utf-8")
    (tmp_path / "tests" / "pytest.ini").write_text("[pytest]\naddopts = --import-mode=importlib")
    line = [sys.executable, "-m", "pytest", "tests", "-p", "no:hypothesispytest"]
    line.append(f"--junitxml={tmp_path / 'all.xml'}")
    subprocess.run(line, cwd=tmp_path, capture_output=True)
    return reliability.format_report(list(reliability.read_cases(tmp_path)))


def test_the_page_says_what_pytest_says(page):
    lines = page.splitlines()
    assert "| Pots and pans: what they hold | 5 | 3 | 1 | 1 |" in lines
    assert "| a pot holds | 2 | 1 | 1 | 0 | soup; a\\|b &lt;b> |" in lines
    assert "1,234 cases: 1,200 gave a valid result, 34 were refused with an error message." in lines
    assert "| CoZPot | 1,234 | 1,200 | 34 |" in lines
    assert "## Memory of the server over 40 prompts in a row" in lines
    assert "prompt it grew by at most 4.0 %" in page
    (failed,) = [line for line in lines if line.startswith("- a pot holds")]
    assert "assert 'a\\|b &lt;b>' == 'soup'" in failed
    (skipped,) = [line for line in lines if line.startswith("- a pan is here")]
    assert "there is no stove" in skipped
