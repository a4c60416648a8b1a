import os
from math import nan

import av
import comfy.model_management
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from nodes import NODE_CLASS_MAPPINGS

from ...coz.color.profile import convert_to_srgb
from ..host.files import PACK

PICTURES = PACK / "pictures"

NONE = "none"

DECODING_ERRORS = (
    av.error.FFmpegError,
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
)
"""The errors of Load Image for a file that is not an image: it tries PyAV first, then Pillow."""


def list_samples() -> list[str]:
    return sorted(p.name for p in PICTURES.iterdir() if p.suffix in {".jpg", ".png"})


def list_input_images() -> list[str]:
    """List the images in ComfyUI's input folder, as Load Image does."""
    with os.scandir(folder_paths.get_input_directory()) as entries:
        files = [entry.name for entry in entries if entry.is_file()]
    return sorted(folder_paths.filter_files_content_types(files, ["image"]))


def run_loader_node(loader_id: str, **name: str) -> torch.Tensor:
    """Load a file with one of ComfyUI's loader nodes and return the image."""
    loader = NODE_CLASS_MAPPINGS[loader_id]
    return getattr(loader(), loader.FUNCTION)(**name)[0]


class CoZSamplePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSamplePicture",
            display_name="CoZ Sample Picture",
            category="Chain-of-Zoom/load",
            description="Loads a sample photograph that comes with the pack (public domain or CC0). To "
            "load an image of your own, drop it onto the node.",
            search_aliases=["sample image", "example image", "test image", "load image"],
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=list_samples(),
                    tooltip="One of the pack's photographs. Their authors, sources and licenses are in "
                    "the pack's pictures/README.md.",
                ),
                io.Combo.Input(
                    "own_picture",
                    options=[NONE, *list_input_images()],
                    default=NONE,
                    optional=True,
                    tooltip="A file of ComfyUI's input folder, used instead of the sample. To add a file "
                    "there and choose it, drop an image onto the node or press its button. none: the "
                    "sample is used.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="image", tooltip="The photograph in its own size."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, own_picture=NONE):
        # ComfyUI's own check would use the list of files from before the last upload.
        if own_picture in (None, "", NONE) or folder_paths.exists_annotated_filepath(own_picture):
            return True
        return (
            f"own_picture: there is no file {own_picture} in ComfyUI's input folder. Choose another, "
            f"or {NONE} for the sample"
        )

    @classmethod
    def fingerprint_inputs(cls, own_picture=NONE, **kwargs):
        if own_picture in (None, "", NONE):
            return ""
        try:
            facts = os.stat(folder_paths.get_annotated_filepath(own_picture))
        except OSError:
            return nan
        return f"{facts.st_mtime_ns} {facts.st_size}"

    @classmethod
    def execute(cls, picture, own_picture=NONE) -> io.NodeOutput:
        if own_picture not in ("", NONE):
            try:
                return io.NodeOutput(run_loader_node("LoadImage", image=own_picture))
            except DECODING_ERRORS as error:
                raise ValueError(
                    f"own_picture: {own_picture} cannot be read as an image ({error}). Choose another, or "
                    f"{NONE} for the sample"
                ) from error
        with Image.open(PICTURES / picture) as file:
            pixels = np.array(convert_to_srgb(file))
        image = torch.from_numpy(pixels)[None].to(comfy.model_management.intermediate_device())
        return io.NodeOutput(image.float() / 255)
