"""Convert LoRA files of PEFT and diffusers to standard keys."""

import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .lora import StandardKeyWeights, find_common_value, list_few, pair_factors

PEFT_PREFIX = "base_model.model."
PEFT_CONFIG_NAME = "adapter_config.json"

PROMPT_LORA_PREFIX = "text_encoders.transformer."
"""Prefix of a language model's layers. Source: ComfyUI comfy/lora.py, model_lora_keys_clip."""

LANGUAGE_LAYERS = (
    r"\.self_attn\.([qkvo]|out)_proj\b|\.mlp\.(gate|up|down)_proj\b|\b(embed_tokens|lm_head)\b"
)
VISUAL_LAYERS = r"^(model\.)?visual\."
UNET_LAYERS = r"(?:(?:down|up)_blocks|mid_block|conv_in|conv_out|time_embedding|add_embedding)\b"

LORA_KEY = r"lora_|[._]lora\.|\.lokr_|\.hada_|\.oft_|\.diff(_b)?$|\.set_weight$"
"""Matches keys that ComfyUI's LoRA loader reads. Source: comfy/lora.py and comfy/weight_adapter."""

PLAIN_LORA_CONFIG: dict[str, list[Any]] = {
    "peft_type": ["LORA"],
    "bias": ["none"],
    "fan_in_fan_out": [False],
    "init_lora_weights": [True, False, "gaussian", "orthogonal", "eva"],
    "layer_replication": [],
    "lora_bias": [False],
    "use_dora": [False],
}
"""Values of a PEFT config that mean W + scale * B @ A and nothing more; other initializations change W."""

NUMBER_FIELDS = ["r", "lora_alpha", "rank_pattern", "alpha_pattern"]

SLOW_PATTERN = re.compile(r"\)[*+{]|([*+?{)].*){5}", re.DOTALL)
"""Matches a pattern whose backtracking could block Python, and with it ComfyUI, for hours."""

MAX_LAYER_NAME_CHARACTERS = 128
"""Maximum length of a layer's name; real ones are half as long. A pattern may be twice as long."""


class Scaling(NamedTuple):
    """The rank and alpha of each layer, from the config of a PEFT adapter."""

    rank: float
    alpha: float
    rank_pattern: dict[re.Pattern[str], float]
    alpha_pattern: dict[re.Pattern[str], float]
    is_rank_stabilized: bool

    def find_alpha(self, layer: str, rank: int) -> float:
        """Find the alpha for which alpha / rank is the layer's scale.

        Raises:
            ValueError: If the config states another rank for the layer.
        """
        if len(layer) > MAX_LAYER_NAME_CHARACTERS:
            raise ValueError(
                f"expected layer names of at most {MAX_LAYER_NAME_CHARACTERS} characters, but found "
                f"{list_few([layer])}"
            )
        expected = next((r for p, r in self.rank_pattern.items() if p.match(layer)), self.rank)
        if rank != expected:
            raise ValueError(
                f"expected {layer} to have rank {expected:g}, as its config says, but found {rank}; "
                f"take the {PEFT_CONFIG_NAME} that was saved with it"
            )
        alpha = next((a for p, a in self.alpha_pattern.items() if p.match(layer)), self.alpha)
        return alpha * math.sqrt(rank) if self.is_rank_stabilized else alpha


def convert_peft(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> StandardKeyWeights:
    """Convert a PEFT adapter to the names of ComfyUI's loader, with an alpha for each layer.

    Raises:
        ValueError: If it is more than a plain LoRA, or has other ranks than its config states.

    Source: peft tuners/lora/model.py, rank and alpha patterns; layer.py, use_rslora.
    """
    scaling = _read_scaling(config)
    pairs, rest = pair_factors(tensors)
    if rest or not pairs:
        raise ValueError(
            f"expected a PEFT adapter of LoRA layers, but found {len(pairs)} and other weights: "
            f"{list_few(rest)}; save it without bias, DoRA and modules_to_save"
        )
    keyed: dict[str, Tensor] = {}
    alphas: list[float] = []
    for layer, (down, up) in pairs.items():
        name = layer.removeprefix(PEFT_PREFIX)
        alphas.append(scaling.find_alpha(name, down.shape[0]))
        if re.search(LANGUAGE_LAYERS, name) or re.match(VISUAL_LAYERS, name):
            key = PROMPT_LORA_PREFIX + _rename_qwen_layer(name)
        elif re.match(UNET_LAYERS, name.removeprefix("unet.")):
            key = f"lora_unet_{name.removeprefix('unet.').replace('.', '_')}"
        else:
            key = f"transformer.{name.removeprefix('transformer.')}"
        keyed[f"{key}.lora_A.weight"], keyed[f"{key}.lora_B.weight"] = down, up
        keyed[f"{key}.alpha"] = torch.tensor(alphas[-1])
    rank = find_common_value(down.shape[0] for down, _ in pairs.values())
    return StandardKeyWeights("peft lora", keyed, rank, find_common_value(alphas))


def _rename_qwen_layer(name: str) -> str:
    """Rename a layer of Qwen2.5-VL to ComfyUI's name.

    Versions of transformers use `model.layers`, `model.language_model.layers` or (without the
    output layer) `layers`, and `visual.blocks` or `model.visual.blocks`.
    """
    name = re.sub(r"^(model\.)?(language_model\.)?(model\.)?layers\.", "model.layers.", name)
    return re.sub(VISUAL_LAYERS, "visual.", name)


def convert_lora(tensors: Mapping[str, Tensor], adapters: Mapping[str, Any]) -> StandardKeyWeights:
    """Keep an ordinary LoRA under its own keys, and add the alphas that its metadata states.

    Args:
        tensors: As in the file.
        adapters: diffusers' `lora_adapter_metadata`, PEFT configs whose keys start with the name of a
            part (`transformer.lora_alpha`). {} if there is none; alpha is then that in the file, or r.

    Raises:
        ValueError: If it holds no LoRA, or has other ranks than its metadata states.
    """
    if not any(re.search(LORA_KEY, name) for name in tensors):
        raise ValueError(
            f"expected LoRA weights, but found {list_few(tensors)}; a whole model belongs in Load "
            "Checkpoint, Load Diffusion Model or Load VAE"
        )
    keyed = dict(tensors)
    for part in sorted({name.partition(".")[0] + "." for name in adapters}):
        config = {n.removeprefix(part): v for n, v in adapters.items() if n.startswith(part)}
        scaling = _read_scaling(config)
        pairs, _ = pair_factors({n: t for n, t in tensors.items() if n.startswith(part)})
        for layer, (down, _) in pairs.items():
            alpha = scaling.find_alpha(layer.removeprefix(part), down.shape[0])
            keyed.setdefault(f"{layer}.alpha", torch.tensor(alpha))
    downs = (t for name, t in keyed.items() if re.search(r"lora(_A|_down|\.down)\b", name))
    rank = find_common_value(down.shape[0] for down in downs)
    alphas = [t for name, t in keyed.items() if name.endswith(".alpha") and t.numel() == 1]
    alpha = find_common_value(map(float, alphas)) if alphas or rank is None else float(rank)
    return StandardKeyWeights("lora", keyed, rank, alpha)


def _read_scaling(config: Mapping[str, Any]) -> Scaling:
    for name, plain in PLAIN_LORA_CONFIG.items():
        if config.get(name) is not None and config[name] not in plain:
            raise ValueError(
                f"expected a plain LoRA, but found {name}={config[name]} in its config; merge it "
                "with PEFT into the model that it was trained on"
            )
    try:
        return Scaling(
            rank=float(config["r"]),
            alpha=float(config["lora_alpha"]),
            rank_pattern=_compile_patterns(config.get("rank_pattern")),
            alpha_pattern=_compile_patterns(config.get("alpha_pattern")),
            is_rank_stabilized=bool(config.get("use_rslora")),
        )
    except (AttributeError, KeyError, TypeError, ValueError, re.error) as error:
        raise ValueError(
            "expected r and lora_alpha of its config to be numbers, and rank_pattern and alpha_pattern to "
            "map simple patterns of layer names to numbers, but found "
            f"{reprlib.repr([config.get(name) for name in NUMBER_FIELDS])}; take the "
            f"{PEFT_CONFIG_NAME} saved with it"
        ) from error


def _compile_patterns(patterns: dict[str, Any] | None) -> dict[re.Pattern[str], float]:
    """Compile patterns, which match the end of a layer's name.

    Source: peft utils/other.py, get_pattern_key.
    """
    if any(
        len(p) > 2 * MAX_LAYER_NAME_CHARACTERS or SLOW_PATTERN.search(p) for p in patterns or {}
    ):
        raise ValueError("matching would take too long")
    return {re.compile(rf"(.*\.)?({p})$"): float(v) for p, v in (patterns or {}).items()}
