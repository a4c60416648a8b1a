"""Find the tags of an image through the pack's nodes, and compare them with the plain network of coz/."""

import importlib
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from coz.networks.ram_tagger import (
    RAMTagger,
    make_tagger_input,
    read_tag_list,
    read_tagger_sizes,
)
from coz.weights.read import read_tagger

from .files import FoundModel
from .step import get_node, use_float32

DAPE_SCALE = 1 / 8
"""Scale of DAPE's LoRA. loralib divides lora_alpha, 1 by default, by the rank, which is 8."""

MAX_DIFFERENCE = 1e-3
"""Maximum difference of a logit, in float32. The smallest known mistake, to leave the mean token
out, makes a difference of 1.6e-3."""

MAX_ROUNDING = 0.01
"""Maximum distance of a tag's probability from its threshold at which rounding to half precision may add or
remove the tag."""


def find_tags(models: dict[str, FoundModel], image: Tensor) -> list[str]:
    """Return the tags that CoZ Tag Prompt finds in a (1, 3, H, W) image."""
    dape = models["DAPE"].register_for_loader() if "DAPE" in models else "none"
    (tagger,) = get_node("CoZLoadTagger").execute(models["RAM"].register_for_loader(), dape).args
    text = get_node("CoZTagPrompt").execute(tagger, image.movedim(1, -1)).args[0]
    return text.split(", ") if text else []


def compare_logits(
    pack: ModuleType, models: dict[str, FoundModel], image: Tensor
) -> tuple[float, Tensor]:
    """Rate all tags in float32, in ComfyUI and in the plain network.

    Returns:
        The largest difference of a logit, and the logits (tags,) of the plain network.
    """
    host = importlib.import_module(f"{pack.__name__}.nodes.host.tagger")
    weights = {name: w.float() for name, w in read_tagger(models["RAM"].paths[0]).items()}
    dape = models["DAPE"].paths[0] if "DAPE" in models else None
    with use_float32():
        tagger = host.make_tagger(weights)
        if dape:
            tagger = host.patch_tagger(tagger, dape, 1.0)
        found = tagger.rate(image)[0]
    network = RAMTagger(read_tagger_sizes(weights))
    network.load_state_dict(merge_dape(weights, dape) if dape else weights)
    expected = network(make_tagger_input(image))[0]
    return float((found - expected).abs().max()), expected


def merge_dape(weights: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Merge the factors of the published DAPE into RAM's weights, as loralib does."""
    merged = {name: weight.clone() for name, weight in weights.items()}
    published = torch.load(path, map_location="cpu", weights_only=True)
    for layer in [name.removesuffix(".lora_A") for name in published if name.endswith(".lora_A")]:
        # tag_encoder shares with tagging_head the weights that both have.
        target = merged.get(f"{layer.replace('tag_encoder.', 'tagging_head.')}.weight")
        if target is None:  # the layer is for training or for captions
            continue
        down, up = (published[f"{layer}.lora_{factor}"].float() for factor in "AB")
        if layer.endswith(".qkv"):  # has factors for query and value, and none for key
            rows, (down_q, down_v), (up_q, up_v) = len(up) // 2, down.chunk(2), up.chunk(2)
            target[:rows] += up_q @ down_q * DAPE_SCALE
            target[-rows:] += up_v @ down_v * DAPE_SCALE
        else:
            target += up @ down * DAPE_SCALE
    return merged


def count_wrong(found: list[str], logits: Tensor) -> int:
    """Count the tags that are wrongly found or wrongly missing, and that rounding cannot explain."""
    names, thresholds = read_tag_list()
    distance = logits.sigmoid() - thresholds
    is_found = torch.tensor([name in set(found) for name in names])
    differs = is_found != (distance > 0)
    return int((differs & (distance.abs() > MAX_ROUNDING)).sum())
