"""Random weights of the structure of Qwen2.5-VL and its prompt LoRA: nothing has to be downloaded.

`draw_qwen25vl` and the functions that write files do without transformers and peft, which compute.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from .random_weights import draw_recorded, randomise

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Qwen2_5_VLForConditionalGeneration

IMAGE_PAD = 151655
HEAD = 128
VISION_HEAD = 80
LORA_LAYERS = r"(.*language_model.*)\.(q_proj|o_proj|gate_proj|down_proj|k_proj|up_proj|v_proj)$"
"""Chain-of-Zoom's adapter_config.json, in the layer names of transformers 5."""
RANK = 8
LORA_SEED = 5
PROMPT_LORA_CONFIG = Path(__file__).parents[1] / "data" / "oracles" / "adapter_config.json"


def qwen25vl(
    *,
    layers: int = 2,
    heads: int = 2,
    intermediate: int = 384,
    vision_layers: int = 9,
    vision_heads: int = 2,
    vision_intermediate: int = 320,
    seed: int = 0,
) -> "Qwen2_5_VLForConditionalGeneration":
    """The 3B model has 36 layers, 16 heads, 11008; its vision 32 layers, 16 heads, 3420.

    The first vision layer that sees beyond its window is the eighth.
    """
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

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


def with_prompt_lora(network: "Qwen2_5_VLForConditionalGeneration", alpha: int = 32) -> "PeftModel":
    """The network, changed in place, under an adapter like Chain-of-Zoom's: in every layer."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=RANK, lora_alpha=alpha, target_modules=LORA_LAYERS)
    adapted = get_peft_model(network, config)
    generator = torch.Generator().manual_seed(LORA_SEED)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.05
    return adapted.eval().requires_grad_(False)


def draw_qwen25vl() -> dict[str, Tensor]:
    """The weights of `qwen25vl()` as transformers name them in memory, without the output layer."""
    return draw_recorded("qwen25vl")


def name_as_published(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name weights as the files of Hugging Face do."""
    return {
        name.replace("model.language_model.", "model.").replace("model.visual.", "visual."): weight
        for name, weight in weights.items()
    }


def save_shards(weights: dict[str, Tensor], folder: Path) -> None:
    """Save weights in two files and their index, the table of words in the first."""
    folder.mkdir()
    names = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]
    weights = name_as_published(weights)
    places = {key: names["embed_tokens" not in key] for key in weights}
    for name in names:
        chosen = {key: weight for key, weight in weights.items() if places[key] == name}
        save_file(chosen, folder / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def save_prompt_lora(shapes: dict[str, list[int]], folder: Path) -> None:
    """Save an adapter like Chain-of-Zoom's for layers of these shapes, as PEFT does."""
    generator = torch.Generator().manual_seed(LORA_SEED)
    factors = {}
    for name, (rows, *columns) in shapes.items():
        layer = name.removesuffix(".weight")
        if name != layer and re.fullmatch(LORA_LAYERS, layer):
            for end, shape in (("A", (RANK, *columns)), ("B", (rows, RANK))):
                factor = torch.randn(shape, generator=generator) * 0.05
                factors[f"base_model.model.{layer}.lora_{end}.weight"] = factor
    folder.mkdir(exist_ok=True)
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(PROMPT_LORA_CONFIG.read_text("utf-8"), "utf-8")
