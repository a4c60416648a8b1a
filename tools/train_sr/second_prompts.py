"""Write the prompts of the second zoom with a vision-language model, and embed them."""

import json
from collections.abc import Callable, Sequence

from accelerate.utils import release_memory
from PIL import Image
from torch import Tensor, device
from torch.utils.data import default_collate
from tqdm import tqdm

from coz.render.pillow import to_pillow
from coz.text.conversation import MULTISCALE_INSTRUCTION

from .captions import load_writer
from .checkpoint import write_whole
from .config import CrossScaleConfig
from .dataset import CropDataset
from .prepare import encode_prompts
from .texts import Batch, Embeddings, Texts

PROMPTS_FILE = "second_prompts.json"
MAX_TOKENS = 32
"""Maximum tokens of an answer. Source: OracleZoom."""

SAVE_EVERY = 100
"""Number of prompts after which they are saved, so that an interrupted call continues."""


class TextsOfTwoZooms(Texts):
    """Embeds the prompts of both zooms."""

    def __init__(self, config: CrossScaleConfig, device: device) -> None:
        super().__init__(config, device)
        self.prompts: dict[str, str] = {}
        """Name of a crop -> prompt of its second zoom, written beforehand."""
        is_live = config.vlm and config.second_prompts == "live"
        self.write = self._load_vlm() if is_live else None

    def _load_vlm(self):
        return load_writer(self.config.vlm, MULTISCALE_INSTRUCTION, MAX_TOKENS)

    def embed_second(self, batch: Batch, first: Tensor, view: Tensor) -> Embeddings:
        """Embed the prompts of the second zoom.

        Args:
            first: The first zoom, (B, 3, H, W) in [-1, 1].
            view: Its enlarged middle, of the same size.
        """
        if self.write:
            return self.embed_prompts(self.write(pair_images(first, view)))
        if self.prompts:
            return self.embed_prompts([self.prompts[name] for name in batch["name"]])
        return self.embed(batch)

    def write_prompts(self, data: Sequence[CropDataset], make_views: Callable) -> None:
        """Let the VLM write the prompts that are missing, and unload it.

        Args:
            make_views: Maps a batch to the first zooms and their enlarged middles.
        """
        path = self.config.out / PROMPTS_FILE
        if path.is_file():
            self.prompts = json.loads(path.read_text("utf-8"))
        path.parent.mkdir(parents=True, exist_ok=True)
        places = [(crops, i, crop["name"]) for crops in data for i, crop in enumerate(crops.crops)]
        if missing := [(crops, i) for crops, i, name in places if name not in self.prompts]:
            write = self._load_vlm()
            for number, (crops, i) in enumerate(tqdm(missing, "Describing", unit=" crops"), 1):
                batch = default_collate([crops[i]])
                (self.prompts[batch["name"][0]],) = write(pair_images(*make_views(batch)))
                if number % SAVE_EVERY == 0 or number == len(missing):
                    write_whole(path, json.dumps(self.prompts, indent=1).encode())
            del write
            release_memory()
        if self.config.text_cached:
            encode_prompts(self.prompts.values(), self.config.data, self.config.model)


def pair_images(first: Tensor, view: Tensor) -> list[list[Image.Image]]:
    """Pair images (B, 3, H, W) in [-1, 1] for the VLM."""
    return [
        [to_pillow(image[None].detach() / 2 + 0.5) for image in pair]
        for pair in zip(first, view, strict=True)
    ]
