"""Encode prompts with ComfyUI's text encoders, such that every character counts as written."""

import re

import torch
from comfy.sd import CLIP

from ...coz.text.step_prompts import replace_lone_surrogates
from .memory import explain_out_of_memory


def escape_prompt(clip: CLIP, prompt: str) -> str:
    """Escape a prompt such that ComfyUI takes every character as written."""
    prompt = replace_lone_surrogates(prompt)
    # Escape brackets, which would set weights. But LongCat, Lens and MiniMax read no weights: their
    # tokenizers would keep the backslash.
    if clip.tokenize(r"\(") == clip.tokenize("("):
        prompt = re.sub(r"([()])", r"\\\1", prompt)
    return re.sub(r"(?<!\S)embedding:", "embedding :", prompt)


@explain_out_of_memory("The text encoders", "choose a checkpoint without T5, or with T5 in fp8")
def encode(clip: CLIP | None, prompt: str, t5_tokens: int) -> list:
    """Encode a prompt as written, cut to the length that the text encoders were trained with."""
    require_clip(clip)
    text = escape_prompt(clip, prompt)
    tokens = clip.tokenize(text)
    # Only SD3 and Flux need this. In other models with T5, ComfyUI's tokenizer already pads to the length
    # that they were trained with.
    if {"l", "t5xxl"} <= tokens.keys() <= {"l", "g", "t5xxl"}:
        options = {"t5xxl_min_length": t5_tokens, "t5xxl_min_padding": 0}
        (t5,) = clip.tokenize(text, tokenizer_options=options)["t5xxl"]
        tokens["t5xxl"] = [t5[: t5_tokens - 1] + t5[-1:]]
    for encoder in {"l", "g", "h"} & tokens.keys():
        tokens[encoder] = tokens[encoder][:1]
    return clip.encode_from_tokens_scheduled(tokens)


def can_join_conditionings(conditionings: list[list]) -> bool:
    """Return whether conditionings have the same form, so that ``join_conditionings`` can join them."""
    return len(conditionings) == 1 or all(
        len(each) == 1
        and each[0][1].keys() == {"pooled_output"}
        and each[0][0].shape == conditionings[0][0][0].shape
        and each[0][1]["pooled_output"] is not None
        for each in conditionings
    )


def join_conditionings(conditionings: list[list]) -> list:
    """Join conditionings, one for each image of a batch."""
    if all(each is conditionings[0] for each in conditionings):
        return conditionings[0]
    pooled = torch.cat([each[0][1]["pooled_output"] for each in conditionings])
    return [[torch.cat([each[0][0] for each in conditionings]), {"pooled_output": pooled}]]


def require_clip(clip: CLIP | None) -> None:
    if clip is None:
        raise ValueError(
            "clip is empty: the checkpoint holds no text encoder. Load the text encoders of the "
            "model with Load CLIP (for SD3: Load CLIP (Dual) or TripleCLIPLoader) and connect them"
        )
