"""The weights of Qwen2.5-VL as they lie in files, and whether they are those of the 3B model."""

import re
from pathlib import Path

import comfy.lora
import comfy.utils
from torch import Tensor

from ...coz.weights.lora import list_few
from ...coz.weights.read import require_safetensors

MODEL_LINK = "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct"

OTHERS = {3584: "7B", 5120: "32B", 8192: "72B"}
"""Widths of the models whose output layer is another than their input layer, which it is not here."""

HEAD = 128
VISION_HEAD = 80
"""Channels of an attention head, in a Qwen2.5-VL of any size."""


def read(paths: list[Path]) -> dict[str, Tensor]:
    """All weights under the names of the host's classes; they stay on disk until they are used."""
    state = {}
    for path in paths:
        require_safetensors(path)
        part, metadata = comfy.utils.load_torch_file(
            str(path), safe_load=True, return_metadata=True
        )
        state |= comfy.utils.convert_old_quants(part, metadata=metadata)[0]
    renamed = {"model.language_model.": "model.", "model.visual.": "visual."}
    state = comfy.utils.state_dict_prefix_replace(state, renamed)
    # The same as the input layer, and no layer of the host's class.
    return {key: weight for key, weight in state.items() if not key.startswith("lm_head.")}


def sizes(state: dict[str, Tensor], name: str) -> dict[str, dict[str, int]]:
    """The model's measures, from weights that no quantisation packs."""
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
            f"model alone, which sees no pictures; take the files of {MODEL_LINK}, or a single file made "
            "of all of them (7.5 GB in 16 bits), such as qwen_2.5_vl_fp16.safetensors of OmniGen2"
        )
    vocabulary, width = state["model.embed_tokens.weight"].shape
    if width in OTHERS:
        raise ValueError(
            f"{name}: expected Qwen2.5-VL-3B (2048 wide), but found the {OTHERS[width]} model ({width} wide); "
            f"take the files of {MODEL_LINK}"
        )
    try:
        vision_width = len(state[f"{block}.norm1.weight"])
        return {
            "text": {
                "vocab_size": vocabulary,
                "hidden_size": width,
                "intermediate_size": len(state[f"{layer}.mlp.gate_proj.weight"]),
                "num_hidden_layers": count(state, r"model\.layers\.(\d+)\."),
                "num_attention_heads": len(state[f"{layer}.self_attn.q_proj.bias"]) // HEAD,
                "num_key_value_heads": len(state[f"{layer}.self_attn.k_proj.bias"]) // HEAD,
            },
            "vision": {
                "hidden_size": vision_width,
                "intermediate_size": len(state[f"{block}.mlp.gate_proj.bias"]),
                "num_heads": vision_width // VISION_HEAD,
                "num_layers": count(state, r"visual\.blocks\.(\d+)\."),
            },
        }
    except KeyError as error:
        raise ValueError(incomplete(name, [str(error.args[0])])) from error


def count(state: dict[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for key in state if (found := re.match(pattern, key)))


def check_weights(state: dict[str, Tensor], expected: dict[str, Tensor], name: str) -> None:
    """Every weight is there and of its shape: of what is missing the host only logs the names."""
    if lacking := [key for key in expected if key not in state]:
        raise ValueError(incomplete(name, lacking))
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
            f"{name}: expected weights as they are, or quantised for ComfyUI, but found {list_few(foreign)} "
            f"of another program; take the files of {MODEL_LINK}"
        )


def incomplete(name: str, lacking: list[str]) -> str:
    return (
        f"{name}: expected all weights of Qwen2.5-VL-3B, but found none named "
        f"{list_few(lacking)}: it is incomplete, "
        f"or quantised for another program; take the files of {MODEL_LINK}"
    )
