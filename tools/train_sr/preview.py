"""Draw what the LoRA of a step makes: zooms into crops that are not trained on."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from coz.geometry import plan_zoom
from coz.render.pillow import to_pillow
from coz.render.strip import draw_strip
from coz.zoom import View, zoom

from .dataset import CropDataset
from .network import OneStepNetwork

PREVIEWED_CROPS = 3

Embed = Callable[[dict[str, Any]], tuple[Tensor, Tensor]]


@torch.no_grad()
def draw_preview(
    network: OneStepNetwork, embed: Embed, crops: CropDataset, zooms: int, device: torch.device
) -> Image.Image | None:
    """Zoom into the first three crops with the active adapters; None if there are no crops.

    Args:
        embed: Maps a batch to its text embeddings, (text, pooled).
        zooms: Number of 4x steps.
    """
    strips: list[Image.Image] = []
    for i in range(min(PREVIEWED_CROPS, len(crops))):
        batch = default_collate([crops[i]])
        text, pooled = (tensor.to(device) for tensor in embed(batch))

        def super_resolve(view: View, _: str, text=text, pooled=pooled) -> Tensor:
            _, image = network.enlarge(view.zoomed.to(device) * 2 - 1, text, pooled)
            return image.cpu() / 2 + 0.5

        image = batch["high"] / 2 + 0.5
        plan = plan_zoom(
            *image.shape[-2:], zooms, frame="whole picture square", size=len(image[0, 0])
        )
        strips.append(to_pillow(draw_strip(zoom(image, plan, super_resolve))))
    return stack(strips) if strips else None


def stack(images: list[Image.Image]) -> Image.Image:
    sheet = Image.new("RGB", (images[0].width, sum(image.height for image in images)))
    for i, image in enumerate(images):
        sheet.paste(image, (0, i * image.height))
    return sheet
