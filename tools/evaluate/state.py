"""What decides the results of an evaluation beside its pictures and settings."""

import hashlib
import importlib.metadata
from collections.abc import Sequence

from tools.host import ROOT, comfyui_version, host_path

MAKERS = ("coz/**/*", "nodes/**/*", "models/**/*")
"""Files of this repository on which the frames depend."""

METERS = tuple(
    f"tools/evaluate/{name}.py" for name in ("iqa", "job", "metrics", "perceptual", "seam")
)
"""Those on which the scores depend besides."""


def state(files: Sequence[str] = (*MAKERS, "tools/**/*")) -> dict[str, str]:
    """The versions of this repository's code and weights, of ComfyUI and of torch.

    Args:
        files: Patterns; only code and weights count.

    Raises:
        HostError: If COMFYUI_PATH leads nowhere.
    """
    digest = hashlib.sha256()
    for file in sorted(file for pattern in files for file in ROOT.glob(pattern)):
        if file.suffix in {".py", ".safetensors"}:
            digest.update(f"{file.relative_to(ROOT).as_posix()}\n".encode())
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return {
        "Chain-of-Zoom": digest.hexdigest()[:12],
        "ComfyUI": comfyui_version(host_path()) or "none",
        "torch": importlib.metadata.version("torch").partition("+")[0],
    }
