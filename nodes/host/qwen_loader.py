"""Load Qwen2.5-VL if this version of ComfyUI can run it."""

from pathlib import Path

from comfyui_version import __version__ as comfyui_version

from ...coz import __version__


def load_qwen(paths: list[Path]):
    try:
        from . import qwen  # its classes are built from ComfyUI's

        return qwen.load_qwen(paths)
    except (ImportError, AttributeError, TypeError) as error:
        raise RuntimeError(
            "This version of ComfyUI has changed its Qwen classes, which CoZ Load Prompt Extractor is built "
            f"from; update Chain-of-Zoom (pack {__version__}, ComfyUI {comfyui_version}: {error})"
        ) from error
