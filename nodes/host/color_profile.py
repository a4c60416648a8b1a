"""Find the color profile of the file that an image comes from."""

from pathlib import Path

import folder_paths
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from PIL import Image

from ...coz.color.profile import MAX_PROFILE_NAME_CHARACTERS, read_non_srgb_profile_name
from ...coz.text.step_prompts import join_lines

IMAGE_LOADERS = {
    "LoadImage": "image",
    "LoadImageOutput": "image",
    "CoZSamplePicture": "own_picture",
}
"""Nodes whose first output is the image of a file -> the input that names the file."""

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
"""Nodes of ComfyUI that resize, crop or move an ``image`` and keep its colors."""


def find_image_file(dynprompt: DynamicPrompt, node_id: str) -> Path | None:
    """Return the file that a node's input ``image`` comes from.

    None if there is no file, or if a node in between may change the colors.
    """
    link, seen = dynprompt.get_node(node_id)["inputs"].get("image"), set()
    while is_link(link) and link[0] not in seen and dynprompt.has_node(link[0]):
        seen.add(link[0])
        node = dynprompt.get_node(link[0])
        name = node["inputs"].get(IMAGE_LOADERS.get(node["class_type"], "image"))
        if node["class_type"] in IMAGE_LOADERS:
            is_picture = link[1] == 0 and isinstance(name, str)
            return Path(folder_paths.get_annotated_filepath(name)) if is_picture else None
        link = name if node["class_type"] in COLOR_KEEPERS else None
    return None


def read_color_profile(dynprompt: DynamicPrompt, node_id: str) -> str:
    """Return the name of the color profile of a node's ``image``; "" if it is sRGB or unknown."""
    try:
        path = find_image_file(dynprompt, node_id)
        if path is None:
            return ""
        with Image.open(path) as picture:
            return read_non_srgb_profile_name(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return ""  # Load Image also reads files that Pillow cannot read


def write_profile_notice(name: str) -> str:
    """Return a notice about a color profile of this name; "" if there is none."""
    if not name:
        return ""
    return (
        f"the image has the color profile {join_lines(name)[:MAX_PROFILE_NAME_CHARACTERS]}, which ComfyUI does not "
        "apply: colors are read as sRGB. Convert the image to sRGB first"
    )
