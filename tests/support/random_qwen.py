"""Random weights of the structure of Qwen2.5-VL and its prompt LoRA: nothing has to be downloaded."""

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from .random_weights import randomise

IMAGE_PAD = 151655
HEAD = 128
VISION_HEAD = 80
LORA_LAYERS = r"(.*language_model.*)\.(q_proj|o_proj|gate_proj|down_proj|k_proj|up_proj|v_proj)$"
"""Chain-of-Zoom's adapter_config.json, in the layer names of transformers 5."""


def qwen25vl(
    *,
    layers: int = 2,
    heads: int = 2,
    intermediate: int = 384,
    vision_layers: int = 9,
    vision_heads: int = 2,
    vision_intermediate: int = 320,
    seed: int = 0,
) -> Qwen2_5_VLForConditionalGeneration:
    """The 3B model has 36 layers, 16 heads, 11008; its vision 32 layers, 16 heads, 3420.

    The first vision layer that sees beyond its window is the eighth.
    """
    width = HEAD * heads
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": width,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 8),
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            # As before transformers 5, which still reads it.
            "rope_theta": 1000000.0,
            "rope_scaling": {"rope_type": "default", "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": [151645, 151643],
            "pad_token_id": 151643,
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": VISION_HEAD * vision_heads,
            "intermediate_size": vision_intermediate,
            "num_heads": vision_heads,
            "out_hidden_size": width,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
        },
        tie_word_embeddings=True,
        image_token_id=IMAGE_PAD,
        vision_start_token_id=151652,
        vision_end_token_id=151653,
        video_token_id=151656,
    )
    return randomise(Qwen2_5_VLForConditionalGeneration(config), seed)


def with_prompt_lora(
    network: Qwen2_5_VLForConditionalGeneration, rank: int = 8, alpha: int = 32, seed: int = 5
) -> PeftModel:
    """The network, changed in place, under an adapter like Chain-of-Zoom's: in every layer."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=LORA_LAYERS)
    adapted = get_peft_model(network, config)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    return adapted.eval().requires_grad_(False)
