"""Write the prompts of crops with the tagger RAM or with a vision-language model."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from coz.networks.ram_tagger import RAMTagger, make_tagger_input, read_tag_list, read_tagger_sizes
from coz.render.pillow import from_pillow
from coz.text.answer import clean_answer
from coz.text.conversation import SINGLE_INSTRUCTION
from coz.text.tags import join_tags
from coz.weights.read import read_tagger

MAX_TOKENS = 128
"""Maximum tokens of a description. Source: Chain-of-Zoom inference_coz.py."""

Write = Callable[[Sequence[Sequence[Image.Image]]], list[str]]
"""A function that writes a prompt for each list of images."""


def find_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tagger(path: Path) -> Write:
    """Load RAM, which describes the sharp crop by its tags, as in Chain-of-Zoom's training."""
    weights, (names, thresholds) = read_tagger(path), read_tag_list()
    with torch.device("meta"):
        network = RAMTagger(read_tagger_sizes(weights))
    network.load_state_dict(weights, assign=True)
    network = network.to(find_device(), torch.float32)
    if len(network.label_embed) != len(names):
        raise ValueError(
            f"{path} has {len(network.label_embed)} tags, but RAM has {len(names)}: take "
            "ram_swin_large_14m.pth"
        )

    @torch.inference_mode()
    def write(crops: Sequence[Sequence[Image.Image]]) -> list[str]:
        pixels = torch.cat([make_tagger_input(from_pillow(crop)) for (crop,) in crops])
        logits = network(pixels.to(network.label_embed.device)).cpu()
        return [join_tags(values, names, thresholds, ()) for values in logits]

    return write


def load_writer(
    model: str, instruction: str = SINGLE_INSTRUCTION, max_tokens: int = MAX_TOKENS
) -> Write:
    """Load a vision-language model by its name or folder; transformers must know it."""
    from tools.train_grpo.vlm import load_vlm

    try:
        ask = load_vlm(model, instruction, max_tokens)
    except ValueError as error:
        raise ValueError(f"the VLM {model} cannot be loaded: {error}") from error
    return lambda images: [clean_answer(*answer) for answer in ask(images)]
