"""Make the text embeddings of both zooms. A VLM may write the prompt of the second."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import default_collate
from tqdm import tqdm

from coz.render.pillow import to_pillow
from coz.text.conversation import MULTISCALE_INSTRUCTION

from .captions import Ask, load_conversation
from .checkpoint import write_whole
from .config import CrossScaleConfig
from .dataset import CropDataset, find_text_file
from .prepare import encode_prompts
from .texts import Encode, load_text_encoders

PROMPTS_FILE = "second_prompts.json"
MAX_TOKENS = 32
"""Maximum tokens of an answer. Source: OracleZoom."""

SAVE_EVERY = 100
"""Prompts after which they are saved, so that an interrupted call continues."""

Batch = dict[str, Any]
Embeddings = tuple[Tensor, Tensor]


class Texts:
    """Maps a batch to its text embeddings, (text, pooled)."""

    def __init__(self, config: CrossScaleConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.prompts: dict[str, str] = {}
        """Name of a crop -> prompt of its second zoom, written beforehand."""
        self.encode: Encode | None = None
        self.ask: Ask | None = None
        if not config.text_cached:
            self.encode = load_text_encoders(config.model)
        if config.vlm and config.second_prompts == "live":
            self.ask = load_conversation(config.vlm, MULTISCALE_INSTRUCTION, MAX_TOKENS)

    def embed_first(self, batch: Batch) -> Embeddings:
        if "text" in batch:
            return batch["text"].to(self.device), batch["pooled"].to(self.device)
        return self._embed(batch["prompt"])

    def embed_second(self, batch: Batch, first: Tensor, view: Tensor) -> Embeddings:
        """Embed the prompts of the second zoom.

        Args:
            first: The first zoom, (B, 3, H, W) in [-1, 1].
            view: Its enlarged middle, of the same size.
        """
        if self.ask:
            return self._embed(self.ask(pair_images(first, view)))
        if self.prompts:
            return self._embed([self.prompts[name] for name in batch["name"]])
        return self.embed_first(batch)

    def write_prompts(
        self,
        data: Iterable[CropDataset],
        make_views: Callable[[Batch], tuple[Tensor, Tensor]],
    ) -> None:
        """Let the VLM write the prompts that are missing.

        Args:
            make_views: Maps a batch to the first zooms and their enlarged middles.
        """
        config, path = self.config, self.config.out / PROMPTS_FILE
        if path.is_file():
            self.prompts = json.loads(path.read_text("utf-8"))
        missing = [
            (crops, i)
            for crops in data
            for i, crop in enumerate(crops.crops)
            if crop["name"] not in self.prompts
        ]
        config.out.mkdir(parents=True, exist_ok=True)
        if missing:
            ask = load_conversation(config.vlm, MULTISCALE_INSTRUCTION, MAX_TOKENS)
            for number, (crops, i) in enumerate(tqdm(missing, "Describing", unit=" crops"), 1):
                batch = default_collate([crops[i]])
                (answer,) = ask(pair_images(*make_views(batch)))
                self.prompts[batch["name"][0]] = answer
                if number % SAVE_EVERY == 0 or number == len(missing):
                    write_whole(path, json.dumps(self.prompts, indent=1).encode())
        if config.text_cached:
            encode_prompts(self.prompts.values(), config.data, config.model)

    def _embed(self, prompts: list[str]) -> Embeddings:
        if self.encode:
            # Copies, because tensors made in inference mode cannot be saved for backward.
            text, pooled = (tensor.clone() for tensor in self.encode(prompts))
        else:
            stored = [load_file(find_text_file(self.config.data, prompt)) for prompt in prompts]
            text, pooled = (torch.stack([s[n] for s in stored]) for n in ("text", "pooled"))
        return text.to(self.device), pooled.to(self.device)


def pair_images(first: Tensor, view: Tensor) -> list[list[Any]]:
    """Pair images (B, 3, H, W) in [-1, 1] for the VLM."""
    return [
        [to_pillow(image[None].cpu() / 2 + 0.5) for image in pair]
        for pair in zip(first.detach(), view.detach(), strict=True)
    ]
