"""Weight files in the host's model folders."""

import re
from pathlib import Path, PurePath

import folder_paths
from comfy_execution.graph_utils import is_link
from PIL import Image

from ..coz.color_profile import MAX_NAME, foreign_profile
from ..coz.prompt import one_line


def likely_first(pattern: str, *folders: str) -> list[str]:
    """The names in these folders, those that match the pattern at the top.

    With slashes on Windows too: to the page the names in a workflow from elsewhere would be missing.
    """
    listed = [name for folder in folders for name in folder_paths.get_filename_list(folder)]
    names = dict.fromkeys(PurePath(name).as_posix() for name in listed)
    return sorted(names, key=lambda name: not re.search(pattern, name, re.IGNORECASE))


def found_in(name: str, *folders: str) -> list[Path]:
    """Paths, also where the name has the slashes of another system: workflows travel."""
    name = name.replace("\\", "/")
    return [Path(path) for folder in folders if (path := folder_paths.get_full_path(folder, name))]


def missing(name: str, own: str, *folders: str) -> str:
    """That the file is in none of the folders, and where Chain-of-Zoom's own is found."""
    return (
        f"{name} is not in models/{' or models/'.join(folders)}. Put the file there and press R. "
        f"Chain-of-Zoom's own: {own}"
    )


def path_of(name: str, own: str, *folders: str) -> Path:
    if not name or not (found := found_in(name, *folders)):
        raise ValueError(missing(name, own, *folders))
    return found[0]


def used_models(dynprompt, node_id: str) -> list[str]:
    """File names of the models that a loop's links lead to; those of its chain are in its record."""
    names, seen, waiting = [], set(), [node_id]
    while waiting:
        current = waiting.pop(0)
        if current in seen:
            continue
        seen.add(current)
        for key, value in dynprompt.get_node(current)["inputs"].items():
            if (current, key) == (node_id, "chain"):
                continue
            if is_link(value):
                waiting.append(value[0])
            elif (
                isinstance(value, str)
                and Path(value).suffix in folder_paths.supported_pt_extensions
            ):
                names.append(value)
    return list(dict.fromkeys(names))


PICTURE_LOADERS = {"LoadImage", "LoadImageOutput"}
"""The host's nodes whose first output is the file that their input ``image`` names."""


def picture_file(dynprompt, node_id: str) -> Path | None:
    """Return the file that a node's input ``image`` comes from.

    Followed are nodes that take one link and no other, such as Upscale Image or a crop: they leave
    the colours as they are. None where the way ends or forks.
    """
    link, seen = dynprompt.get_node(node_id)["inputs"].get("image"), set()
    while is_link(link) and link[0] not in seen and dynprompt.has_node(link[0]):
        seen.add(link[0])
        node = dynprompt.get_node(link[0])
        name = node["inputs"].get("image")
        if node["class_type"] in PICTURE_LOADERS:
            is_picture = link[1] == 0 and isinstance(name, str)
            return Path(folder_paths.get_annotated_filepath(name)) if is_picture else None
        links = [value for value in node["inputs"].values() if is_link(value)]
        link = links[0] if len(links) == 1 else None
    return None


def color_profile(dynprompt, node_id: str) -> str:
    """Return the name of the colour profile of a node's ``image``; "" for sRGB, none or not known."""
    try:
        path = picture_file(dynprompt, node_id)
        if path is None:
            return ""
        with Image.open(path) as picture:
            return foreign_profile(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""  # Load Image reads other files than Pillow does


def profile_note(name: str) -> str:
    return (
        f"the picture has the colour profile {one_line(name)[:MAX_NAME]}, which ComfyUI does not apply: colours are read as "
        "sRGB. Convert it to sRGB first"
    )
