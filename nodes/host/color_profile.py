"""The colour profile of the file that an image comes from."""

from pathlib import Path

import folder_paths
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from PIL import Image

from ...coz.color.profile import MAX_PROFILE_NAME_CHARACTERS, name_foreign_profile
from ...coz.text.step_prompts import join_lines

PICTURE_LOADERS = {
    "LoadImage": "image",
    "LoadImageOutput": "image",
    "CoZSamplePicture": "own_picture",
}
"""The nodes whose first output is a file, and the input of each that names it."""

COLOR_KEEPERS = {
    "ImageCrop",
    "ImageCropV2",
    "ImageFlip",
    "ImageFromBatch",
    "ImageRotate",
    "ImageScale",
    "ImageScaleBy",
    "ImageScaleToMaxDimension",
    "ImageScaleToTotalPixels",
}
"""The host's nodes that change size or place of an ``image`` and not its colours."""


def picture_file(dynprompt: DynamicPrompt, node_id: str) -> Path | None:
    """Return the file that a node's input ``image`` comes from.

    Only nodes that leave the colours as they are lie on the way. None where it leads elsewhere.
    """
    link, seen = dynprompt.get_node(node_id)["inputs"].get("image"), set()
    while is_link(link) and link[0] not in seen and dynprompt.has_node(link[0]):
        seen.add(link[0])
        node = dynprompt.get_node(link[0])
        name = node["inputs"].get(PICTURE_LOADERS.get(node["class_type"], "image"))
        if node["class_type"] in PICTURE_LOADERS:
            is_picture = link[1] == 0 and isinstance(name, str)
            return Path(folder_paths.get_annotated_filepath(name)) if is_picture else None
        link = name if node["class_type"] in COLOR_KEEPERS else None
    return None


def color_profile(dynprompt: DynamicPrompt, node_id: str) -> str:
    """Return the name of the colour profile of a node's ``image``; "" for sRGB, none or not known."""
    try:
        path = picture_file(dynprompt, node_id)
        if path is None:
            return ""
        with Image.open(path) as picture:
            return name_foreign_profile(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""  # Load Image reads other files than Pillow does


def profile_note(name: str) -> str:
    """Warn about a colour profile of this name; "" for none."""
    if not name:
        return ""
    return (
        f"the picture has the colour profile {join_lines(name)[:MAX_PROFILE_NAME_CHARACTERS]}, "
        "which ComfyUI does not apply: colours are read as sRGB. Convert it to sRGB first"
    )
