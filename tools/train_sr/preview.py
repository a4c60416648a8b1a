"""Draw previews of a training: zooms into crops that are not trained on."""

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
from .texts import Texts

PREVIEWED_CROPS = 3


@torch.no_grad()
def draw_preview(
    network: OneStepNetwork, texts: Texts, crops: CropDataset, zooms: int
) -> Image.Image | None:
    """Zoom in 4x steps into the first three crops with the active adapters; None if there are no crops."""
    strips = []
    for i in range(min(PREVIEWED_CROPS, len(crops))):
        batch = default_collate([crops[i]])
        embeddings = texts.embed(batch)

        def super_resolve(view: View, _: str, embeddings=embeddings) -> Tensor:
            _, image = network.enlarge(view.zoomed.to(texts.device) * 2 - 1, *embeddings)
            return image.cpu() / 2 + 0.5

        image = batch["high"] / 2 + 0.5
        side = image.shape[-1]
        plan = plan_zoom(side, side, zooms, frame="whole picture square", size=side)
        strips.append(draw_strip(zoom(image, plan, super_resolve)))
    return to_pillow(torch.cat(strips, 2)) if strips else None
