import os
import subprocess
import sys

import pytest

from tools.host import ROOT
from tools.host.chromium import TESTED_MAJOR_VERSION


@pytest.mark.skipif(os.name == "nt", reason="the browser tests run on Linux")
@pytest.mark.parametrize(
    ("version", "line"),
    [
        (f"Chromium {TESTED_MAJOR_VERSION}.0.1.2 built on Debian", ""),
        ("Google Chrome 12.3.4.5", f"Chromium 12.3.4.5 is installed, but the browser tests were run in {TESTED_MAJOR_VERSION}\n"),
        ("", f"Chromium of an unknown version is installed, but the browser tests were run in {TESTED_MAJOR_VERSION}\n"),
    ],
    ids=["tested", "another", "silent"],
)  # fmt: skip
def test_another_major_version_of_chromium_is_reported(tmp_path, version, line):
    browser = tmp_path / "chromium"
    browser.write_text(f"#!/bin/sh\necho '{version}'\n", "utf-8")
    browser.chmod(0o755)
    result = subprocess.run(
        [sys.executable, "tools/host/chromium.py"],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, line, "")
