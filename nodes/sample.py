import comfy.model_management
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image

from ..coz.color_profile import to_srgb
from .host import PACK, SEARCH_ALIASES

PICTURES = PACK / "pictures"


def picture_names() -> list[str]:
    return sorted(p.name for p in PICTURES.iterdir() if p.suffix in {".jpg", ".png"})


class CoZSamplePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSamplePicture",
            display_name="CoZ Sample Picture",
            category="Chain-of-Zoom/load",
            description="A photograph that ships with the pack, in the public domain or CC0, to try a zoom with.",
            search_aliases=[*SEARCH_ALIASES, "example image", "load image"],
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=picture_names(),
                    tooltip="Sources and licences are in the pack's pictures folder.",
                )
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="image", tooltip="The photograph in its own size."
                )
            ],
        )

    @classmethod
    def execute(cls, picture) -> io.NodeOutput:
        with Image.open(PICTURES / picture) as file:
            pixels = np.array(to_srgb(file))
        image = torch.from_numpy(pixels)[None].to(comfy.model_management.intermediate_device())
        return io.NodeOutput(image.float() / 255)
