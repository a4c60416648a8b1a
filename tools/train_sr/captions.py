"""Describe crops for their prompts: by a text file beside the photograph, the tags of RAM, or a VLM."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from coz.networks.ram_tagger import (
    RAMTagger,
    make_tagger_input,
    read_tag_list,
    read_tagger_sizes,
)
from coz.render.pillow import from_pillow
from coz.text.answer import clean_answer
from coz.text.conversation import SINGLE_INSTRUCTION
from coz.text.tags import join_tags
from coz.weights.read import read_tagger

MAX_TOKENS = 128
"""Maximum tokens of a description. Source: Chain-of-Zoom inference_coz.py."""

Describe = Callable[[list[Image.Image]], list[str]]
Ask = Callable[[list[list[Image.Image]]], list[str]]


def find_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def load_tagger(path: Path) -> Describe:
    """Load RAM, which describes the sharp crop by its tags, as in Chain-of-Zoom's training.

    Raises:
        FileNotFoundError, ValueError: If there is no such file, or it is not RAM.
    """
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
    def describe(crops: list[Image.Image]) -> list[str]:
        pixels = torch.cat([make_tagger_input(from_pillow(crop)) for crop in crops])
        logits = network(pixels.to(network.label_embed.device)).cpu()
        return [join_tags(values, names, thresholds, ()) for values in logits]

    return describe


def load_vlm(model: str) -> Describe:
    """Load a vision-language model, the name or folder of one that transformers loads.

    Raises:
        ValueError: If it cannot be loaded.
    """
    ask = load_conversation(model, SINGLE_INSTRUCTION, MAX_TOKENS)
    return lambda crops: ask([[crop] for crop in crops])


def load_conversation(model: str, instruction: str, max_tokens: int) -> Ask:
    """Load a vision-language model that answers one question about lists of images.

    Raises:
        ValueError: If it cannot be loaded.
    """
    from transformers import AutoModelForImageTextToText, AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(model, padding_side="left")
        network = AutoModelForImageTextToText.from_pretrained(model, dtype="auto").eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"the VLM {model} cannot be loaded: {reason}") from error
    network = network.to(find_device())

    @torch.inference_mode()
    def ask(views: list[list[Image.Image]]) -> list[str]:
        system = {"role": "system", "content": [{"type": "text", "text": instruction}]}
        users = [
            {"role": "user", "content": [{"type": "image", "image": image} for image in images]}
            for images in views
        ]
        inputs = processor.apply_chat_template(
            [[system, user] for user in users],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(network.device)
        answers = network.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
        new = answers[:, inputs["input_ids"].shape[1] :]
        # Only an answer that ended is followed by an end token or by padding.
        ends = torch.as_tensor(network.generation_config.eos_token_id, device=new.device)
        cut = ~torch.isin(new, ends).any(1) & (new.shape[1] == max_tokens)
        texts = processor.batch_decode(new, skip_special_tokens=True)
        return [clean_answer(text, bool(c)) for text, c in zip(texts, cut, strict=True)]

    return ask
