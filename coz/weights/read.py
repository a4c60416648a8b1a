"""Read weight files of Chain-of-Zoom, OSEDiff, PEFT, diffusers, RAM, SeeSR and tools/convert.py.

No code in the files is run.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

from torch import Tensor

from ..latent import LATENT_SHIFTS
from .chain_of_zoom import convert_coz_lora, convert_coz_vae_encoder
from .lora import (
    Kind,
    SRWeights,
    StandardKeyWeights,
    is_state_dict,
    list_few,
    pair_factors,
    split_weights,
)
from .osediff import convert_osediff
from .peft import (
    LANGUAGE_LAYERS,
    PEFT_CONFIG_NAME,
    PEFT_PREFIX,
    PROMPT_LORA_PREFIX,
    convert_lora,
    convert_peft,
)
from .ram import (
    DAPE_FILE_NAME,
    RAM_FILE_NAME,
    convert_dape,
    find_ram_weights,
    is_dape,
    pick_tagger_weights,
)
from .weight_file import is_safetensors, name_file_in_errors, open_safetensors, read_content

FORMAT = "chain-of-zoom/1"
"""Value of `format` in the metadata of a converted file."""


def read_weights(path: Path) -> SRWeights:
    """Read the changes that a file makes to a diffusion model and its VAE.

    Args:
        path: Chain-of-Zoom's SR LoRA (.pkl) or VAE encoder (.pt), osediff.pkl, a PEFT adapter with
            its adapter_config.json beside it, an ordinary LoRA, or a file of tools/convert.py.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these, damaged, or a LoRA for the prompt extractor.
    """
    content, metadata = read_content(path)
    with name_file_in_errors(path):
        if is_state_dict(content) and any(map(_is_for_prompts, content)):
            raise ValueError(
                "expected a LoRA for super-resolution, but found one for a language model; choose "
                "it in CoZ Load Prompt Extractor"
            )
        if is_dape(content) or find_ram_weights(content):
            raise ValueError(
                "expected a LoRA for super-resolution, but found the tagger RAM or its LoRA DAPE; choose "
                "it in CoZ Load Tagger"
            )
        return split_weights(_convert(content, metadata, path))


def read_with_standard_keys(path: Path) -> StandardKeyWeights:
    """Read an SR LoRA, a VAE encoder, a prompt LoRA, RAM or DAPE under the keys of a converted file.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    content, metadata = read_content(path)
    with name_file_in_errors(path):
        return _convert(content, metadata, path)


def read_prompt_lora(path: Path) -> dict[str, Tensor]:
    """Read a LoRA for the prompt extractor's language model.

    Args:
        path: A PEFT adapter with its adapter_config.json beside it, or its converted file.

    Returns:
        `.lora_A.weight`, `.lora_B.weight` and `.alpha` of each layer, under
        `text_encoders.transformer.` and the layer's name in ComfyUI's Qwen classes, which starts
        with `model.layers.` or `visual.`.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    tensors = read_with_standard_keys(path).tensors
    with name_file_in_errors(path):
        if rest := [name for name in tensors if not name.startswith(PROMPT_LORA_PREFIX)]:
            raise ValueError(
                f"expected a LoRA for the prompt extractor, but found {list_few(rest)}; a LoRA for "
                "super-resolution belongs in CoZ Load SR LoRA. Take adapter_model.safetensors, "
                f"with its {PEFT_CONFIG_NAME}"
            )
        return tensors


def read_tagger(path: Path) -> dict[str, Tensor]:
    """Read the weights of RAM that rate the tags, under their names in its checkpoint.

    Args:
        path: ram_swin_large_14m.pth, of which only these weights are read, or its converted file.

    Returns:
        Weights that stay on disk until they are used.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    content, _ = read_content(path)
    with name_file_in_errors(path):
        if is_dape(content):
            raise ValueError(
                "expected the tagger RAM, but found DAPE, a LoRA for it; choose it as dape_name, and "
                f"{RAM_FILE_NAME} as tagger_name"
            )
        weights = find_ram_weights(content)
        if weights is None:
            names: list[str] = list(content) if is_state_dict(content) else []
            raise ValueError(
                f"expected the tagger RAM, but found {list_few(names)}; take {RAM_FILE_NAME}"
            )
        return pick_tagger_weights(weights)


def read_dape(path: Path) -> dict[str, Tensor]:
    """Read DAPE, under the keys of `convert_dape`.

    Args:
        path: DAPE.pth or its converted file.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    content, metadata = read_content(path)
    with name_file_in_errors(path):
        if find_ram_weights(content):
            raise ValueError(
                "expected DAPE, a LoRA for the tagger RAM, but found RAM itself; choose it as "
                f"tagger_name, and {DAPE_FILE_NAME} or none as dape_name"
            )
        if not is_dape(content):
            raise ValueError(
                "expected DAPE, a LoRA for the tagger RAM, but found "
                f"{list_few(_list_names(content))}; take {DAPE_FILE_NAME}"
            )
        return _convert(content, metadata, path).tensors


def require_safetensors(path: Path) -> None:
    """Check the start and the size of a file that another reader will read.

    Raises:
        FileNotFoundError, ValueError: If it is no safetensors file, or is cut short.
    """
    is_pytorch = not is_safetensors(path)
    with name_file_in_errors(path):
        if is_pytorch:
            raise ValueError(
                "expected safetensors, but found a PyTorch file; take the .safetensors file of the same model"
            )
        with open_safetensors(path):
            pass


def read_vae(path: Path) -> dict[str, Tensor]:
    """Read the VAE from the file of a VAE or of a whole checkpoint.

    Returns:
        The weights under the names in the file, without `first_stage_model.` or `vae.`.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    content, _ = read_content(path)
    with name_file_in_errors(path):
        names = _list_names(content)
        for prefix in ["first_stage_model.", "vae.", ""]:
            if f"{prefix}decoder.conv_in.weight" in names:
                parts = tuple(prefix + part for part in ("encoder.", "decoder.", "quant_", "post_"))
                inside = (name for name in names if name.startswith(parts))
                return {name.removeprefix(prefix): content[name] for name in inside}
        raise ValueError(
            f"expected a VAE with its decoder, but found {list_few(names)}; take the VAE or the "
            "checkpoint of the base model"
        )


def _list_names(content: Any) -> list[str]:
    """List the names in a state dict; anything else has none."""
    return list(content) if is_state_dict(content) else []


def _convert(content: Any, metadata: Mapping[str, str], path: Path) -> StandardKeyWeights:
    if isinstance(content, list):
        return convert_coz_lora(cast("list[Any]", content))
    if weights := find_ram_weights(content):
        return StandardKeyWeights("ram", pick_tagger_weights(weights), None, None)
    if isinstance(content, dict) and "state_dict_unet" in content:
        return convert_osediff(cast("dict[str, Any]", content))
    if not is_state_dict(content):
        raise ValueError(
            "expected named tensors, or the list of matrices of Chain-of-Zoom's SR LoRA, but found "
            "something else; take model_20001.pkl, vae_encoder_20001.pt, osediff.pkl or a LoRA"
        )
    if metadata.get("format") == FORMAT:
        return _read_converted(content, metadata)
    if is_dape(content):
        return convert_dape(content)
    if any(".base_layer." in name for name in content):
        return convert_coz_vae_encoder(content)
    if any(name.startswith(PEFT_PREFIX) for name in content):
        return convert_peft(content, _read_peft_config(path.with_name(PEFT_CONFIG_NAME)))
    return convert_lora(content, _parse_json_object(metadata.get("lora_adapter_metadata", "{}")))


def _read_converted(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> StandardKeyWeights:
    entries = ("kind", "rank", "alpha", "latent_shift")
    kind, rank, alpha, latent_shift = (metadata.get(name) for name in entries)
    layers = {} if kind == "lora" else pair_factors(tensors)[0]
    lacking = [layer for layer in layers if f"{layer}.alpha" not in tensors]
    if kind not in get_args(Kind):
        raise ValueError(
            f"expected a file of tools/convert.py, but found the kind {kind!s:.40}, which is none of "
            f"{', '.join(get_args(Kind))}; convert the original again with this version"
        )
    if lacking:
        raise ValueError(
            f"expected a file of tools/convert.py, but found no alpha for {list_few(lacking)}; convert the "
            "original again with this version"
        )
    if latent_shift not in (None, *LATENT_SHIFTS):
        raise ValueError(
            f"expected latent_shift in its metadata to be {', '.join(LATENT_SHIFTS)}, but found "
            f"{latent_shift:.40}; convert or train it again with this version"
        )
    return StandardKeyWeights(
        cast("Kind", kind),
        tensors,
        None if rank is None else int(rank),
        None if alpha is None else float(alpha),
        latent_shift,
    )


def _read_peft_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"expected {path.name} beside it, which states the scale of the LoRA, but found none; "
            f"put the one that it was saved with into {path.parent}"
        )
    return _parse_json_object(path.read_text(encoding="utf-8", errors="replace"))


def _parse_json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"expected a JSON object as the LoRA's config, but found {text[:40]!r}; download it again"
        )
    return cast("dict[str, Any]", value)


def _is_for_prompts(name: str) -> bool:
    return name.startswith((PEFT_PREFIX, PROMPT_LORA_PREFIX)) and bool(
        re.search(LANGUAGE_LAYERS, name)
    )
