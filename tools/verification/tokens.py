"""Ask the prompt extractor through the pack's nodes, and compare its tokens with transformers."""

import importlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from coz.render.pillow import to_pillow
from coz.text.conversation import MULTISCALE_INSTRUCTION, REPETITION_PENALTY

from .files import FoundModel
from .step import get_node

MAX_TOKENS = 16
SIDE_MULTIPLE = 28
"""Sides of the images are multiples of this, so that neither implementation resizes them again."""

MAX_TIE_DISTANCES = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Dtype of the weights -> how far a token's logit may be below the highest logit to count as equally likely.
The distance is relative to the largest absolute logit, and allows for the rounding of the dtype."""

IMAGE_PLACEHOLDER = "<|vision_start|><|image_pad|><|vision_end|>"
IMAGE_TOKEN, VISION_START_TOKEN = 151655, 151652
CONVERSATION = (
    f"<|im_start|>system\n{MULTISCALE_INSTRUCTION}<|im_end|>\n<|im_start|>user\n{IMAGE_PLACEHOLDER * 2}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""The conversation of the authors' code: the instruction in the system's turn, the images in the user's turn."""


def load_vlm(models: dict[str, FoundModel]) -> Any:
    lora = models["prompt LoRA"].register_for_loader() if "prompt LoRA" in models else "none"
    return (
        get_node("CoZLoadPromptExtractor")
        .execute(models["Qwen2.5-VL-3B"].register_for_loader(), lora)
        .args[0]
    )


def resize_for_model(image: Tensor, size: int) -> Image.Image:
    """Convert a (1, 3, H, W) image to 8 bits, and resize it to a size that the model accepts unchanged."""
    side = max(2, size // SIDE_MULTIPLE) * SIDE_MULTIPLE
    return to_pillow(image).resize((side, side), Image.Resampling.BICUBIC)


def ask(vlm: Any, images: list[Image.Image]) -> list[int]:
    """Run VLM Prompt Extractor and return the tokens that it gets from the model."""
    answers: list[list[int]] = []
    generate = vlm.generate

    def generate_and_record(*args, **kwargs):
        answers.append(generate(*args, **kwargs))
        return answers[-1]

    vlm.generate = generate_and_record
    try:
        wide, view = (torch.from_numpy(np.array(image)).float()[None] / 255 for image in images)
        extract = get_node("CoZPromptExtractor").execute
        extract(vlm, view, "", max_tokens=MAX_TOKENS, previous_image=wide)
    finally:
        del vlm.generate
    return list(answers[0])


def compare_tokens(
    pack: ModuleType,
    models: dict[str, FoundModel],
    vlm: Any,
    images: list[Image.Image],
    found: list[int],
) -> tuple[int, int]:
    """Count the tokens that transformers would choose too, and those that are as likely as its choice.

    The second count includes the first. The network of transformers gets the conversation and the found
    tokens, and gives the logits at the place of each token.
    """
    import comfy.model_management as host
    from transformers import RepetitionPenaltyLogitsProcessor

    tokenizer = vlm.tokenizer.qwen25vl.tokenizer
    device = host.get_torch_device()
    host.unload_all_models()
    host.soft_empty_cache()
    network = build_network(pack, models).to(device)
    inputs = build_processor(tokenizer)(text=[CONVERSATION], images=images, return_tensors="pt")
    inputs = {name: value.to(device) for name, value in inputs.items()}
    start = inputs["input_ids"].shape[1]
    answer = torch.tensor([found], device=device)
    inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], dim=1)
    for name in ("attention_mask", "mm_token_type_ids"):
        if name in inputs:
            one = torch.full_like(answer, int(name == "attention_mask"))
            inputs[name] = torch.cat([inputs[name], one], dim=1)
    logits = network(**inputs).logits[0, start - 1 : -1].float()
    penalize = RepetitionPenaltyLogitsProcessor(REPETITION_PENALTY)
    bar = MAX_TIE_DISTANCES[network.dtype]
    same = equal = 0
    for i, token in enumerate(found):
        scores = penalize(inputs["input_ids"][:, : start + i], logits[i : i + 1].clone())[0]
        same += int(scores.argmax()) == token
        equal += bool(scores.max() - scores[token] <= bar * logits[i].abs().max())
    return same, equal


def build_processor(tokenizer: Any) -> Any:
    from transformers import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    try:
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
            Qwen2VLImageProcessorPil as ImageProcessor,
        )
    except ImportError:  # before transformers 5
        from transformers import Qwen2VLImageProcessor as ImageProcessor
    return Qwen2_5_VLProcessor(ImageProcessor(), tokenizer, Qwen2VLVideoProcessor())


def build_network(pack: ModuleType, models: dict[str, FoundModel]) -> Any:
    """Build Qwen2.5-VL in transformers, with the prompt LoRA merged into it."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    weights = importlib.import_module(f"{pack.__name__}.nodes.host.qwen_weights")
    paths = models["Qwen2.5-VL-3B"].paths
    state = weights.read_state(paths)
    sizes = weights.read_sizes(state, paths[0].name)
    config = Qwen2_5_VLConfig(
        text_config={
            **sizes["text"],
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": sizes["vision"]["num_layers"],
            "hidden_size": sizes["vision"]["hidden_size"],
            "intermediate_size": sizes["vision"]["intermediate_size"],
            "num_heads": sizes["vision"]["num_heads"],
            "out_hidden_size": sizes["text"]["hidden_size"],
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        tie_word_embeddings=True,
        image_token_id=IMAGE_TOKEN,
        vision_start_token_id=VISION_START_TOKEN,
        vision_end_token_id=VISION_START_TOKEN + 1,
    )
    named = {
        name.replace("visual.", "model.visual.", 1)
        if name.startswith("visual.")
        else name.replace("model.", "model.language_model.", 1): weight
        for name, weight in state.items()
    }
    dtype = named["model.language_model.norm.weight"].dtype
    named["lm_head.weight"] = named["model.language_model.embed_tokens.weight"]
    network, info = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        None, config=config, state_dict=named, dtype=dtype, output_loading_info=True
    )
    if info["missing_keys"] or info["unexpected_keys"]:
        raise RuntimeError(f"transformers did not take the weights: {info}")
    if "prompt LoRA" in models:
        merge_prompt_lora(network, models["prompt LoRA"].paths[0])
    return network.eval().requires_grad_(False)


def merge_prompt_lora(network: Any, path: Path) -> None:
    """Add the adapter, scaled by alpha / r, to the language model's weights, as peft merges it."""
    config = json.loads(path.with_name("adapter_config.json").read_text("utf-8"))
    factors = load_file(path)
    layers = network.model.language_model
    for name, down in factors.items():
        if ".lora_A." in name:
            layer = layers.get_submodule(re.search(r"layers\..+(?=\.lora_A)", name)[0])
            change = factors[name.replace(".lora_A.", ".lora_B.")].float() @ down.float()
            scale = config["lora_alpha"] / config["r"]
            layer.weight.data = (layer.weight.float() + scale * change).to(layer.weight.dtype)
