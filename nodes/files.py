"""Weight files in the host's model folders."""

import re
from pathlib import Path

import folder_paths


def likely_first(pattern: str, *folders: str) -> list[str]:
    """The names in these folders, those that match the pattern at the top."""
    names = dict.fromkeys(n for folder in folders for n in folder_paths.get_filename_list(folder))
    return sorted(names, key=lambda name: not re.search(pattern, name, re.IGNORECASE))


def found_in(name: str, *folders: str) -> list[Path]:
    """Paths, also where the name has the slashes of another system: workflows travel."""
    return [Path(path) for folder in folders if (path := folder_paths.get_full_path(folder, name))]


def missing(name: str, own: str, *folders: str) -> str:
    """That the file is in none of the folders, and where Chain-of-Zoom's own is found."""
    return (
        f"{name} is not in models/{' or models/'.join(folders)}. Put the file there and press R. "
        f"Chain-of-Zoom's own: {own}"
    )


def path_of(name: str, own: str, *folders: str) -> Path:
    if not (found := found_in(name, *folders)):
        raise ValueError(missing(name, own, *folders))
    return found[0]
