"""Encode prompts with SD3's three text encoders."""

from collections.abc import Callable

import torch
from torch import Tensor

from .captions import find_device

T5_TOKENS = 512
"""Tokens of T5, with padding; CLIP adds 77 before them. Source: Chain-of-Zoom train_osediff_sd3.py."""

Encode = Callable[[list[str]], tuple[Tensor, Tensor]]


def load_text_encoders(model: str) -> Encode:
    """Load the text encoders of SD3, in half precision on a GPU.

    Args:
        model: The name of SD3-medium on Hugging Face or a folder with it, in the layout of diffusers.

    Returns:
        A function that encodes B prompts to text (B, 589, 4096) and pooled (B, 2048), on the encoders'
        device.

    Raises:
        ValueError: If a text encoder or tokenizer is missing.
    """
    from diffusers import StableDiffusion3Pipeline

    device = find_device()
    dtype = torch.float16 if device == "cuda" else torch.float32
    try:
        pipeline = StableDiffusion3Pipeline.from_pretrained(
            model, transformer=None, vae=None, dtype=dtype
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the text encoders cannot be loaded from {model}: {reason}. It needs SD3-medium in the layout "
            "of diffusers, the folder of stabilityai/stable-diffusion-3-medium-diffusers"
        ) from error
    missing = [n for n, part in pipeline.components.items() if part is None and n.startswith("t")]
    if missing := [name for name in missing if name != "transformer"]:
        raise ValueError(f"{model} has no {', '.join(missing)}: SD3 is trained with all encoders")
    pipeline.to(device)

    @torch.inference_mode()
    def encode(prompts: list[str]) -> tuple[Tensor, Tensor]:
        text, _, pooled, _ = pipeline.encode_prompt(
            prompts,
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=T5_TOKENS,
        )
        return text, pooled

    return encode
