"""Load the parts of SD3-medium in the layout of diffusers."""

from collections.abc import Callable, Sequence

import diffusers  # imports its classes when they are used
import torch
from torch import Tensor

from .captions import find_device
from .config import TrainingConfig

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}

T5_TOKENS = 512
"""T5's tokens, with padding; CLIP adds 77 before them. Source: Chain-of-Zoom train_osediff_sd3.py."""

Encode = Callable[[Sequence[str]], tuple[Tensor, Tensor]]


def load_transformer_and_vae(
    config: TrainingConfig,
) -> "tuple[diffusers.SD3Transformer2DModel, diffusers.AutoencoderKL]":
    """Load the networks that are trained, in the config's precision."""
    dtype, vae = DTYPES[config.precision], config.vae or config.model
    return (
        _load_part("SD3Transformer2DModel", config.model, "transformer", dtype=dtype),
        _load_part("AutoencoderKL", vae, "" if config.vae else "vae", "vae", dtype=dtype),
    )


def load_timesteps(model: str) -> Tensor:
    """Return the 1000 timesteps of the model's sampler, from 1000 down; half of SD3's are above 750."""
    scheduler = _load_part("FlowMatchEulerDiscreteScheduler", model, "scheduler")
    scheduler.set_timesteps(1000)
    return scheduler.timesteps


def load_text_encoders(model: str) -> Encode:
    """Load the three text encoders, in half precision on a GPU.

    Args:
        model: The name of SD3-medium on Hugging Face or a folder with it.

    Returns:
        A function that encodes B prompts to text (B, 589, 4096) and pooled (B, 2048), float16 on the
        encoders' device.
    """
    device = find_device()
    dtype = torch.float16 if device == "cuda" else torch.float32
    kind, without = "StableDiffusion3Pipeline", {"transformer": None, "vae": None}
    pipeline = _load_part(kind, model, "", "the text encoders", dtype=dtype, **without)
    parts = [name for name in pipeline.components if name.startswith(("text_encoder", "tokenizer"))]
    if missing := [name for name in parts if pipeline.components[name] is None]:
        raise ValueError(f"{model} has no {', '.join(missing)}: SD3 is trained with all encoders")
    pipeline.to(device)

    @torch.no_grad()  # inference mode would make tensors that backward cannot keep
    def encode(prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        text, _, pooled, _ = pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=T5_TOKENS,
        )
        return text.half(), pooled.half()

    return encode


def _load_part(kind: str, model: object, folder: str, what: str = "", **options):
    """Load a part by the name of its class in diffusers."""
    options |= {"subfolder": folder} if folder else {}
    try:
        return getattr(diffusers, kind).from_pretrained(model, **options)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{what or folder} cannot be loaded from {model}: {reason}. It needs SD3-medium in the layout of "
            "diffusers, the folder of stabilityai/stable-diffusion-3-medium-diffusers"
        ) from error
