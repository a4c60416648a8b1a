"""Find the browser for the browser tests; ``make chromium`` installs it on Debian and Ubuntu."""

import os
import re
import shutil
import subprocess
import sys

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
]

TESTED_MAJOR_VERSION = 156
"""Major version in which all browser tests passed. Change it after `make test` has passed in a newer one."""

BROWSER_COMMANDS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str | None:
    """Return the first Chromium or Chrome on PATH."""
    return next(filter(None, map(shutil.which, BROWSER_COMMANDS)), None)


def main() -> None:
    if not chromium_path():
        install_chromium()
    output = subprocess.run(
        [str(chromium_path()), "--version"], capture_output=True, encoding="utf-8"
    ).stdout
    found = re.search(r"(\d+)(\.\d+)+", output)
    if not found or int(found[1]) != TESTED_MAJOR_VERSION:
        version = found[0] if found else "of an unknown version"
        print(
            f"Chromium {version} is installed, but the browser tests were run in {TESTED_MAJOR_VERSION}"
        )


def install_chromium() -> None:
    if not shutil.which("apt-get"):
        sys.exit(
            "error: the browser tests need Chromium or Chrome, and none is on PATH: install one"
        )
    if os.geteuid() != 0:
        sys.exit("error: the browser tests need Chromium: sudo apt-get install chromium")
    print("Chromium: installing", flush=True)
    for line in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        result = subprocess.run(["apt-get", "-qq", *line], stdin=subprocess.DEVNULL)
        if result.returncode:
            sys.exit(f"error: apt-get {line[0]} failed; its output is above")


if __name__ == "__main__":
    main()
