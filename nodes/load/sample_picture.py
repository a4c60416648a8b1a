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

from ...coz.color.profile import to_srgb
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
"""What Load Image raises for a file that is no picture: it tries PyAV first, then Pillow."""


def picture_names() -> list[str]:
    return sorted(p.name for p in PICTURES.iterdir() if p.suffix in {".jpg", ".png"})


def own_picture_names() -> list[str]:
    """The pictures in ComfyUI's input folder, as Load Image lists them."""
    with os.scandir(folder_paths.get_input_directory()) as entries:
        files = [entry.name for entry in entries if entry.is_file()]
    return sorted(folder_paths.filter_files_content_types(files, ["image"]))


def load_by_host(loader_id: str, **name: str) -> torch.Tensor:
    """The image that one of the host's loader nodes gives for a file."""
    loader = NODE_CLASS_MAPPINGS[loader_id]
    return getattr(loader(), loader.FUNCTION)(**name)[0]


class CoZSamplePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSamplePicture",
            display_name="CoZ Sample Picture",
            category="Chain-of-Zoom/load",
            description="Loads a photograph that comes with the pack (public domain or CC0), to try a "
            "zoom with, or a photograph of your own: drop it onto the node.",
            search_aliases=["sample image", "example image", "test image", "load image"],
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=picture_names(),
                    tooltip="One of the pack's photographs. Their authors, sources and licenses are in "
                    "the pack's pictures/README.md.",
                ),
                io.Combo.Input(
                    "own_picture",
                    options=[NONE, *own_picture_names()],
                    default=NONE,
                    optional=True,
                    tooltip="A file of ComfyUI's input folder that replaces the sample. Drop an image "
                    "onto the node, or press its button, to copy a file there and choose it. none: the "
                    "sample.",
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
        # The host's own check has a list from before the last upload.
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
                return io.NodeOutput(load_by_host("LoadImage", image=own_picture))
            except DECODING_ERRORS as error:
                raise ValueError(
                    f"own_picture: {own_picture} cannot be read as a picture ({error}). Choose another, or "
                    f"{NONE} for the sample"
                ) from error
        with Image.open(PICTURES / picture) as file:
            pixels = np.array(to_srgb(file))
        image = torch.from_numpy(pixels)[None].to(comfy.model_management.intermediate_device())
        return io.NodeOutput(image.float() / 255)
