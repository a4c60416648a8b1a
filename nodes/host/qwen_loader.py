"""Load Qwen2.5-VL if this version of ComfyUI can run it."""

import re
from pathlib import Path

from comfyui_version import __version__ as comfyui_version

from ...coz import __version__

MIN_COMFYUI_VERSION = (0, 27)
"""The first ComfyUI whose `generate` takes the positions of images."""


def require_comfyui_version() -> None:
    version = tuple(map(int, re.findall(r"\d+", comfyui_version)[:2]))
    if version < MIN_COMFYUI_VERSION:
        raise RuntimeError(
            f"The prompt extractor needs ComfyUI 0.27 or newer; this is {comfyui_version}. Update ComfyUI, "
            "or type the prompts yourself"
        )


def load_qwen(paths: list[Path]):
    try:
        from . import qwen  # its classes are built from ComfyUI's

        return qwen.load_qwen(paths)
    except (ImportError, AttributeError, TypeError) as error:
        raise RuntimeError(
            "This version of ComfyUI has changed its Qwen classes, which CoZ Load Prompt Extractor is built "
            f"from; update Chain-of-Zoom (pack {__version__}, ComfyUI {comfyui_version}: {error})"
        ) from error
