"""The tagger RAM under ComfyUI's model management."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import comfy.lora
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...coz.networks.ram_tagger import (
    RAMTagger,
    TaggerSizes,
    make_tagger_input,
    read_tagger_sizes,
)
from ...coz.weights.ram import DAPE_FILE_NAME, RAM_FILE_NAME
from ...coz.weights.read import read_dape, read_tagger
from .lora import find_misfit


@dataclass(frozen=True)
class Tagger:
    """RAM, with or without DAPE: the value of a COZ_TAGGER socket."""

    patcher: ModelPatcher

    def rate(self, image: Tensor) -> Tensor:
        """Rate each tag for images (B, 3, H, W) in [0, 1]; return logits (B, tags) on the CPU."""
        comfy.model_management.load_model_gpu(self.patcher)
        # Resize before the move: some devices cannot resize with a filter.
        pixels = make_tagger_input(image).to(self.patcher.load_device)
        return self.patcher.model(pixels).cpu()


def load_tagger(path: Path) -> Tagger:
    """Load RAM in half precision, as the code of its authors and that of Chain-of-Zoom do."""
    weights = read_tagger(path)
    tags, expected = len(weights["label_embed"]), TaggerSizes().tags
    if tags != expected:
        raise ValueError(
            f"{path.name}: expected RAM with {expected} tags, but found {tags}; take {RAM_FILE_NAME}"
        )
    is_single = {name: weight.dtype == torch.float32 for name, weight in weights.items()}
    return make_tagger({n: w.half() if is_single[n] else w for n, w in weights.items()})


def make_tagger(weights: Mapping[str, Tensor]) -> Tagger:
    """Make the network around these weights, which are not copied."""
    with torch.device("meta"):
        network = RAMTagger(read_tagger_sizes(weights), comfy.ops.manual_cast)
    network.load_state_dict(weights, assign=True)
    comfy.model_management.archive_model_dtypes(network)
    # Not imported by name: ComfyUI replaces the class when it starts.
    patcher = comfy.model_patcher.CoreModelPatcher(
        network,
        load_device=comfy.model_management.text_encoder_device(),
        offload_device=comfy.model_management.text_encoder_offload_device(),
    )
    return Tagger(patcher)


def patch_tagger(tagger: Tagger, path: Path, strength: float) -> Tagger:
    """Return a copy of the tagger with DAPE, which must fit."""
    lora = read_dape(path)
    network = tagger.patcher.model
    weights = network.state_dict()
    targets = {}
    for layer in (key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")):
        base, _, part = layer.partition(".qkv.")
        key = f"{base}.qkv.weight" if part else f"{base}.weight"
        if key not in weights:
            raise ValueError(
                f"{path.name} does not fit tagger: tagger has no {key}. Take {DAPE_FILE_NAME} and {RAM_FILE_NAME}"
            )
        rows = len(weights[key]) // 3
        targets[layer] = (key, (0, "qkv".index(part) * rows, rows)) if part else key
    patches = comfy.lora.load_lora(lora, targets, log_missing=False)
    if wrong := find_misfit(patches, network):
        target, found, expected = wrong
        raise ValueError(
            f"{path.name} does not fit tagger: its layer for {target} is {found}, but in tagger it is "
            f"{expected}. Take {DAPE_FILE_NAME} and {RAM_FILE_NAME}"
        )
    plain: ModelPatcher = tagger.patcher
    patcher: ModelPatcher = plain.clone()
    patcher.add_patches(patches, strength)
    return Tagger(patcher)
