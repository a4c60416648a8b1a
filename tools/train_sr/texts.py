"""Make the text embeddings of batches with SD3's text encoders, or read stored ones."""

from collections.abc import Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from .config import TrainingConfig
from .dataset import find_text_file
from .sd3 import load_text_encoders

Batch = dict[str, Any]
Embeddings = tuple[Tensor, Tensor]


class Texts:
    """Embeds prompts as text (B, tokens, 4096) and pooled (B, 2048)."""

    def __init__(self, config: TrainingConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.encode = None if config.text_cached else load_text_encoders(config.model)

    def embed(self, batch: Batch) -> Embeddings:
        """Return the embeddings of a batch's prompts, which are in the batch if they are stored."""
        if "text" in batch:
            return batch["text"].to(self.device), batch["pooled"].to(self.device)
        return self.embed_prompts(batch["prompt"])

    def embed_prompts(self, prompts: Sequence[str]) -> Embeddings:
        if self.encode:
            text, pooled = self.encode(prompts)
        else:
            stored = [load_file(find_text_file(self.config.data, prompt)) for prompt in prompts]
            text, pooled = (torch.stack([s[name] for s in stored]) for name in ("text", "pooled"))
        return text.to(self.device), pooled.to(self.device)
