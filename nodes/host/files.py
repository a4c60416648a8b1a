"""Find the pack's own folder, and weight files in ComfyUI's model folders."""

import re
from pathlib import Path, PurePath

import folder_paths

PACK = Path(__file__).parents[2]


def list_files(pattern: str, *folders: str) -> list[str]:
    """List the file names in these folders, those that match the pattern first.

    Names have slashes on Windows too, so that the page finds the names of a workflow from another
    system.
    """
    listed = [name for folder in folders for name in folder_paths.get_filename_list(folder)]
    names = dict.fromkeys(PurePath(name).as_posix() for name in listed)
    return sorted(names, key=lambda name: not re.search(pattern, name, re.IGNORECASE))


def find_files(name: str, *folders: str) -> list[Path]:
    """Return the paths of this name; it may have the slashes of another system."""
    name = name.replace("\\", "/")
    return [Path(path) for folder in folders if (path := folder_paths.get_full_path(folder, name))]


def describe_missing_file(name: str, origin: str, *folders: str) -> str:
    """Say that the file is in none of the folders, and which file Chain-of-Zoom uses."""
    return (
        f"{name} is not in models/{' or models/'.join(folders)}. Put the file there and press R. "
        f"Chain-of-Zoom uses {origin}"
    )


def validate_names(*chosen: tuple[str | None, tuple[str, ...]]) -> bool | str:
    """Check chosen files. ComfyUI's own "value not in list" does not say where to get them.

    Names are not compared with ComfyUI's list, which has backslashes on Windows.
    """
    for name, (origin, *folders) in chosen:
        if name not in {None, "none"} and not find_files(name, *folders):
            return describe_missing_file(name, origin, *folders)
    return True


def require_file(name: str, origin: str, *folders: str) -> Path:
    if not name or not (found := find_files(name, *folders)):
        raise ValueError(describe_missing_file(name, origin, *folders))
    return found[0]


def register_builtin_models() -> None:
    """Let ComfyUI's Load Upscale Model list the models that ship with the pack."""
    folder_paths.add_model_folder_path("upscale_models", str(PACK / "models"))
