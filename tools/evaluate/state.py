"""Hash the code and weights on which the results of an evaluation depend."""

import hashlib
import importlib.metadata
from collections.abc import Sequence

from tools.host import ROOT, host_path, read_comfyui_version

FRAME_FILES = ("coz/**/*", "nodes/**/*", "models/**/*")
"""Patterns of the files of this repository on which the frames depend."""

SCORE_FILES = tuple(
    f"tools/evaluate/{name}.py" for name in ("iqa", "job", "metrics", "perceptual", "seam")
)
"""Patterns of further files on which the scores depend."""


def read_code_versions(files: Sequence[str] = (*FRAME_FILES, "tools/**/*")) -> dict[str, str]:
    """Return the versions of this repository's code and weights, of ComfyUI and of torch.

    Args:
        files: Patterns of the files to hash; only .py and .safetensors files count.

    Raises:
        HostError: If COMFYUI_PATH holds no ComfyUI.
    """
    digest = hashlib.sha256()
    for file in sorted(file for pattern in files for file in ROOT.glob(pattern)):
        if file.suffix in {".py", ".safetensors"}:
            digest.update(f"{file.relative_to(ROOT).as_posix()}\n".encode())
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return {
        "Chain-of-Zoom": digest.hexdigest()[:12],
        "ComfyUI": read_comfyui_version(host_path()) or "none",
        "torch": importlib.metadata.version("torch").partition("+")[0],
    }
