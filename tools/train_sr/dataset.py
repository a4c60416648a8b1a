"""Read crops of photographs with their prompts, and degrade them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import Dataset

from coz.render.pillow import from_pillow

from .config import CrossScaleConfig, DistilConfig
from .degradation import degrade, reduce_and_enlarge

INDEX_FILE = "crops.json"
CROPS_FOLDER = "crops"
TEXTS_FOLDER = "texts"

DEGRADATIONS: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "real-esrgan": degrade,
    "4x": lambda image, _: reduce_and_enlarge(image),
}


class CropDataset(Dataset[dict[str, Any]]):
    """The crops of a folder that `prepare` wrote.

    Item i of an epoch depends on the seed, the epoch and i alone, so that it is the same in any number of
    processes and after an interruption.

    Args:
        folder: The folder that `prepare` wrote.
        seed: 0 or more.
        degradation: "real-esrgan", or "4x" for a plain reduction.
        held_out: Take the crops that are not trained on.
    """

    def __init__(self, folder: Path, *, seed: int, degradation: str, held_out: bool = False):
        try:
            index = json.loads((folder / INDEX_FILE).read_text("utf-8"))
        except FileNotFoundError as error:
            raise ValueError(
                f"{folder} holds no finished data set: python -m tools.train_sr prepare IMAGES {folder}"
            ) from error
        self.folder, self.seed, self.degradation = folder, seed, degradation
        self.crops = [crop for crop in index["crops"] if crop["held_out"] == held_out]
        self.has_texts: bool = index["texts"]
        # Shared, because loader processes that live longer than an epoch keep copies of this object.
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the items that are read from now on."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the crop as high, its degraded copy as low, its prompt and its name.

        Both images are (3, size, size) float32 in [-1, 1]. If `has_texts` is set, the prompt's embeddings
        text (tokens, width) and pooled (width,) are added.
        """
        crop = self.crops[index]
        rng = np.random.default_rng((self.seed, int(self.epoch), index))
        with Image.open(self.folder / CROPS_FOLDER / crop["file"]) as file:
            high = from_pillow(file)[0]
        if rng.random() < 0.5:
            high = high.flip(-1)
        low = DEGRADATIONS[self.degradation](high, rng)
        item = {"low": low * 2 - 1, "high": high * 2 - 1} | {n: crop[n] for n in ("prompt", "name")}
        if self.has_texts:
            item |= load_file(find_text_file(self.folder, crop["prompt"]))
        return item


def open_crops(config: DistilConfig | CrossScaleConfig, held_out: bool = False) -> CropDataset:
    """Open the crops of a config. For ``text_cached``, `prepare` must have stored the text embeddings."""
    choices = {"degradation": config.degradation, "held_out": held_out}
    data = CropDataset(config.data, seed=config.seed, **choices)
    if config.text_cached and not data.has_texts:
        raise ValueError(
            f"text_cached: {config.data} holds no text embeddings: prepare it again with --text-encoders, or "
            "set text_cached to false"
        )
    data.has_texts = config.text_cached
    return data


def find_text_file(folder: Path, prompt: str) -> Path:
    """Return the file of a data set that holds the embeddings of a prompt."""
    key = hashlib.blake2b(prompt.encode(), digest_size=10).hexdigest()
    return folder / TEXTS_FOLDER / f"{key}.safetensors"
