"""Find the browser of the browser tests; ``make chromium`` installs it on Debian and Ubuntu."""

import os
import shutil
import subprocess
import sys

BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str | None:
    """The first Chromium or Chrome on PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def main() -> None:
    if chromium_path():
        return
    if not shutil.which("apt-get"):
        sys.exit("error: no Chromium or Chrome is on PATH, the browser tests need one: install it")
    if os.geteuid() != 0:
        sys.exit("error: the browser tests need Chromium: sudo apt-get install chromium")
    print("Chromium: installing", flush=True)
    for line in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        result = subprocess.run(["apt-get", "-qq", *line], stdin=subprocess.DEVNULL)
        if result.returncode:
            sys.exit(f"error: apt-get {line[0]} failed; its output is above")


if __name__ == "__main__":
    main()
