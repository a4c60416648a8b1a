"""The tags of an image as the text of a prompt."""

import re
from collections.abc import Collection

from torch import Tensor

from .step_prompts import trim


def split_tags(text: str) -> list[str]:
    """Split a list of tags at its commas and line breaks; upper and lower case become the same."""
    parts = (trim(part).casefold() for part in re.split(r"[,，\n]", text))
    return [part for part in parts if part]


def find_unknown_tags(tags: list[str], names: list[str]) -> list[str]:
    """Return those of the tags from `split_tags` that are not among the names."""
    known = {name.casefold() for name in names}
    return [tag for tag in dict.fromkeys(tags) if tag not in known]


def join_tags(
    logits: Tensor, names: list[str], thresholds: Tensor, excluded: Collection[str]
) -> str:
    """Join the names whose probability is above their threshold, in their own order, by commas.

    Args:
        logits: (tags,), of any float dtype.
        names: The name of each tag.
        thresholds: Probabilities (tags,), float32.
        excluded: Tags from `split_tags` that are left out.
    """
    found = [names[int(i)] for i in (logits.float().sigmoid() > thresholds).nonzero()]
    return ", ".join(name for name in found if name.casefold() not in excluded)
