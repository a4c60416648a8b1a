"""Pick the weights of RAM out of its checkpoint, and convert DAPE, a LoRA for it, to standard keys."""

import re
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from ..networks.ram_tagger import RAMTagger, read_tagger_sizes
from .lora import StandardKeyWeights, find_common_value, is_state_dict, list_few

RAM_FILE_NAME, DAPE_FILE_NAME = "ram_swin_large_14m.pth", "DAPE.pth"

USED_PARTS = (
    *("visual_encoder.", "image_proj.", "label_embed", "wordvec_proj.", "fc."),
    "tagging_head.encoder.",
)
"""Prefixes of the weights that rate the tags. The other weights are for captions and for training."""

COMPUTED_SUFFIXES = (".attn_mask", ".relative_position_index")
"""Ends of the names of tensors that the network computes itself."""

DAPE_SCALE = 1 / 8
"""loralib divides lora_alpha, 1 by default, by the rank, which is 8."""

DAPE_KEY = re.compile(
    r"((?:visual_encoder|tagging_head|tag_encoder|text_decoder)\..+)\.(?:lora_[AB](?:\.weight)?|alpha)"
)
"""Matches the keys of DAPE, as published and converted."""


def is_dape(content: Any) -> bool:
    """Whether this is the content of DAPE's file, as published or converted."""
    return is_state_dict(content) and bool(content) and all(map(DAPE_KEY.fullmatch, content))


def find_ram_weights(content: Any) -> dict[str, Tensor] | None:
    """Return the state dict in the content of RAM's file, or None if it is another file."""
    if isinstance(content, dict):
        weights = cast("dict[str, Any]", content).get("model", content)
        if is_state_dict(weights) and "label_embed" in weights:
            return weights
    return None


def pick_tagger_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the weights that rate the tags.

    Args:
        weights: RAM's state dict, whole or converted.

    Returns:
        All weights of a `RAMTagger`, not copied.

    Raises:
        ValueError: If it is RAM++, or a weight is missing, superfluous or of another shape.
    """
    if "reweight_scale" in weights:
        raise ValueError(
            "expected RAM, but found RAM++, which has several descriptions for each tag; take "
            f"{RAM_FILE_NAME}"
        )
    # Source of the old name: recognize-anything ram/models/utils.py, load_checkpoint_swinlarge.
    renamed = {name.replace("vision_multi", "tagging_head"): w for name, w in weights.items()}
    used = {
        name: weight
        for name, weight in renamed.items()
        if name.startswith(USED_PARTS) and not name.endswith(COMPUTED_SUFFIXES)
    }
    try:
        with torch.device("meta"):
            expected = RAMTagger(read_tagger_sizes(used)).state_dict()
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(
            f"expected all weights of RAM, but one is missing or has too few dimensions ({error!s:.150}); "
            f"take {RAM_FILE_NAME}"
        ) from error
    shapes = {name: tuple(weight.shape) for name, weight in used.items()}
    for name, weight in expected.items():
        if shapes.pop(name, None) != tuple(weight.shape):
            found = tuple(used[name].shape) if name in used else "none"
            raise ValueError(
                f"expected {name} of RAM to be {tuple(weight.shape)}, but found {found}; take {RAM_FILE_NAME}"
            )
    if shapes:
        raise ValueError(
            f"expected the weights of RAM alone, but found {list_few(shapes)} besides; take {RAM_FILE_NAME}"
        )
    return used


def convert_dape(tensors: Mapping[str, Tensor]) -> StandardKeyWeights:
    """Convert DAPE, a LoRA for query and value of the image encoder, and query and key of the tagging head.

    Args:
        tensors: The factors `lora_A` and `lora_B` of loralib. Those of the image encoder hold the
            factors of query and value, one below the other.

    Returns:
        `.lora_A.weight`, `.lora_B.weight` and `.alpha` of each layer of RAM. Layers of the image encoder
        end in `.attn.qkv.q` and `.attn.qkv.v`, the first and the last third of the rows of qkv.

    Raises:
        ValueError: If a layer lacks a factor or its factors do not fit.

    Source: SeeSR ram/models/swin_transformer_lora.py and bert_lora.py; loralib 0.1.2.
    """
    layers: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for layer in dict.fromkeys(found[1] for name in tensors if (found := DAPE_KEY.fullmatch(name))):
        down, up = (tensors.get(f"{layer}.lora_{factor}") for factor in "AB")
        if down is None or up is None or not down.ndim == up.ndim == 2:
            raise ValueError(
                f"expected {layer:.150} to have two LoRA factors; take {DAPE_FILE_NAME}"
            )
        # tag_encoder shares these weights with tagging_head, so loralib adds the LoRAs of both to them. That
        # of tag_encoder is probably 0, because DAPE's training does not run tag_encoder.
        target = layer.replace("tag_encoder.", "tagging_head.")
        is_head_with_lora = target.startswith("tagging_head.") and f"{target}.lora_A" in tensors
        if layer.startswith("visual_encoder."):
            middle, rows = len(down) // 2, len(up) // 2
            layers[f"{layer}.q"] = [(down[:middle], up[:rows])]
            layers[f"{layer}.v"] = [(down[middle:], up[rows:])]
        elif is_head_with_lora and (target == layer or up.any()):
            layers.setdefault(target, []).append((down, up))
    keyed: dict[str, Tensor] = {}
    for layer, pairs in layers.items():
        downs, ups = zip(*pairs, strict=True)
        shapes = [tuple(t.shape) for t in (*downs, *ups)]
        if any(down.shape[0] != up.shape[1] for down, up in pairs):
            raise ValueError(
                f"expected {layer:.150} to have LoRA factors that fit, but found {shapes}; take {DAPE_FILE_NAME}"
            )
        down, up = torch.cat(downs), torch.cat(ups, 1)
        keyed[f"{layer}.lora_A.weight"], keyed[f"{layer}.lora_B.weight"] = down, up
        keyed[f"{layer}.alpha"] = torch.tensor(DAPE_SCALE * len(down))
    rank = find_common_value(len(t) for name, t in keyed.items() if name.endswith("lora_A.weight"))
    return StandardKeyWeights("dape", keyed, rank, None if rank is None else DAPE_SCALE * rank)
