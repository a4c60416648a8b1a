"""Prompts through the host's text encoders, every character as written."""

import re

from comfy.sd import CLIP

from ...coz.text.step_prompts import replace_lone_surrogates


def literal(clip: CLIP, prompt: str) -> str:
    """The prompt as the host must get it to take every character of it as written."""
    prompt = replace_lone_surrogates(prompt)
    # An escaped bracket is a bracket, with any option and in all tokenizers but those of LongCat,
    # Lens and MiniMax: they read no weights, and the backslash would stay.
    if clip.tokenize(r"\(") == clip.tokenize("("):
        prompt = re.sub(r"([()])", r"\\\1", prompt)
    return re.sub(r"(?<!\S)embedding:", "embedding :", prompt)


def encode(clip: CLIP | None, prompt: str, t5_tokens: int) -> list:
    """The literal prompt as a CONDITIONING, cut to what the text encoders were trained with."""
    require_clip(clip)
    text = literal(clip, prompt)
    tokens = clip.tokenize(text)
    # SD3 and Flux: T5 alone, or in HiDream, gets the length that its model was trained with.
    if {"l", "t5xxl"} <= tokens.keys() <= {"l", "g", "t5xxl"}:
        options = {"t5xxl_min_length": t5_tokens, "t5xxl_min_padding": 0}
        (t5,) = clip.tokenize(text, tokenizer_options=options)["t5xxl"]
        tokens["t5xxl"] = [t5[: t5_tokens - 1] + t5[-1:]]
    for encoder in {"l", "g", "h"} & tokens.keys():
        tokens[encoder] = tokens[encoder][:1]
    return clip.encode_from_tokens_scheduled(tokens)


def require_clip(clip: CLIP | None) -> None:
    if clip is None:
        raise ValueError(
            "clip is empty: the checkpoint holds no text encoder. Load the text encoders of the "
            "model with Load CLIP (for SD3 its Dual or Triple form) and connect it"
        )
