"""Read the weight files of Qwen2.5-VL, and check that they are those of the 3B model."""

import re
from pathlib import Path

import comfy.lora
import comfy.utils
from torch import Tensor

from ...coz.weights.lora import list_few
from ...coz.weights.read import require_safetensors

MODEL_LINK = "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct"

OTHER_SIZES = {3584: "7B", 5120: "32B", 8192: "72B"}
"""Width -> name of the larger models. Their output layer has weights of its own; the output layer of the 3B
model uses the weights of its input layer."""

HEAD_CHANNELS = 128
VISION_HEAD_CHANNELS = 80
"""Channels of an attention head in Qwen2.5-VL of any size."""


def read_state(paths: list[Path]) -> dict[str, Tensor]:
    """Read all weights, with the names of ComfyUI's classes; they stay on disk until they are used."""
    state = {}
    for path in paths:
        require_safetensors(path)
        part, metadata = comfy.utils.load_torch_file(
            str(path), safe_load=True, return_metadata=True
        )
        state |= comfy.utils.convert_old_quants(part, metadata=metadata)[0]
    renamed = {"model.language_model.": "model.", "model.visual.": "visual."}
    state = comfy.utils.state_dict_prefix_replace(state, renamed)
    # The output layer lm_head equals the input layer, and ComfyUI's class has no such layer.
    return {key: weight for key, weight in state.items() if not key.startswith("lm_head.")}


def read_sizes(state: dict[str, Tensor], name: str) -> dict[str, dict[str, int]]:
    """Return the model's dimensions, from weights that quantization does not pack."""
    if any("visual.deepstack_merger_list." in key for key in state):
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B, but found Qwen3-VL; load it with ComfyUI's own Load CLIP, "
            "and connect that to the prompt extractor"
        )
    layer, block = "model.layers.0", "visual.blocks.0"
    if not {"model.embed_tokens.weight", f"{layer}.self_attn.q_proj.bias"} <= state.keys():
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B, but found {list_few(state)}; take the files of {MODEL_LINK}"
        )
    if not any(key.startswith("visual.") for key in state):
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B with its visual weights (visual.*), but found the language "
            f"model alone, which cannot read images; take the files of {MODEL_LINK}, or a single file "
            "with all of them (7.5 GB in 16 bits), such as qwen_2.5_vl_fp16.safetensors of OmniGen2"
        )
    vocabulary, width = state["model.embed_tokens.weight"].shape
    if width in OTHER_SIZES:
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B (2048 wide), but found the {OTHER_SIZES[width]} model "
            f"({width} wide); take the files of {MODEL_LINK}"
        )
    try:
        vision_width = len(state[f"{block}.norm1.weight"])
        return {
            "text": {
                "vocab_size": vocabulary,
                "hidden_size": width,
                "intermediate_size": len(state[f"{layer}.mlp.gate_proj.weight"]),
                "num_hidden_layers": count_blocks(state, r"model\.layers\.(\d+)\."),
                "num_attention_heads": len(state[f"{layer}.self_attn.q_proj.bias"])
                // HEAD_CHANNELS,
                "num_key_value_heads": len(state[f"{layer}.self_attn.k_proj.bias"])
                // HEAD_CHANNELS,
            },
            "vision": {
                "hidden_size": vision_width,
                "intermediate_size": len(state[f"{block}.mlp.gate_proj.bias"]),
                "num_heads": vision_width // VISION_HEAD_CHANNELS,
                "num_layers": count_blocks(state, r"visual\.blocks\.(\d+)\."),
            },
        }
    except KeyError as error:
        raise ValueError(describe_incomplete(name, [str(error.args[0])])) from error


def count_blocks(state: dict[str, Tensor], pattern: str) -> int:
    """Count the blocks whose number the pattern finds in the names of weights."""
    return 1 + max(int(found[1]) for key in state if (found := re.match(pattern, key)))


def check_weights(state: dict[str, Tensor], expected: dict[str, Tensor], name: str) -> None:
    """Require every expected weight with its shape: ComfyUI only logs the names of missing weights."""
    if lacking := [key for key in expected if key not in state]:
        raise ValueError(describe_incomplete(name, lacking))
    layers = {key.rpartition(".")[0] for key in state if key.endswith(".comfy_quant")}
    for key, weight in expected.items():
        is_packed = key.endswith(".weight") and key.rpartition(".")[0] in layers
        if not is_packed and state[key].shape != weight.shape:
            raise ValueError(
                f"{name}: expected its {key} to be {tuple(weight.shape)}, but found {tuple(state[key].shape)}; "
                f"take the files of {MODEL_LINK}"
            )
    scaled = [key for key in state if re.search(r"\.weight_scale(_inv)?$", key)]
    if foreign := [key for key in scaled if key.rpartition(".")[0] not in layers]:
        raise ValueError(
            f"{name}: expected weights that are not quantized, or quantized for ComfyUI, but found "
            f"{list_few(foreign)} of another program; take the files of {MODEL_LINK}"
        )


def describe_incomplete(name: str, lacking: list[str]) -> str:
    return (
        f"{name}: expected all weights of Qwen2.5-VL-3B, but found none named {list_few(lacking)}: it is incomplete, "
        f"or quantized for another program; take the files of {MODEL_LINK}"
    )
