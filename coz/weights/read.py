"""Read weight files of Chain-of-Zoom, OSEDiff, PEFT, diffusers and tools/convert.py; no code in them runs."""

import json
import pickle
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

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

FORMAT = "chain-of-zoom/1"
"""Value of `format` in the metadata of a converted file."""

SAFETENSORS_SUFFIXES = {".safetensors", ".sft"}
PICKLE_SUFFIXES = {".pkl", ".pt", ".pth", ".bin", ".ckpt"}

DAMAGED = "it is damaged or cut short; download it again"


def read_weights(path: Path) -> SRWeights:
    """Read the changes that a file makes to a diffusion model and its VAE.

    Args:
        path: Chain-of-Zoom's SR LoRA (.pkl) or VAE encoder (.pt), osediff.pkl, a PEFT adapter with
            its adapter_config.json beside it, an ordinary LoRA, or a file of tools/convert.py.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is none of these, damaged, or a LoRA for the prompt extractor.
    """
    content, metadata = _read(path)
    with _name_file_in_errors(path):
        if is_state_dict(content) and any(map(_is_for_prompts, content)):
            raise ValueError(
                "expected a LoRA for super-resolution, but found one for a language model; choose "
                "it in CoZ Load Prompt Extractor"
            )
        return split_weights(_convert(content, metadata, path))


def read_with_standard_keys(path: Path) -> StandardKeyWeights:
    """Read a file that `read_weights` accepts, or a prompt LoRA, under the keys of a converted file.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    content, metadata = _read(path)
    with _name_file_in_errors(path):
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
    with _name_file_in_errors(path):
        if rest := [name for name in tensors if not name.startswith(PROMPT_LORA_PREFIX)]:
            raise ValueError(
                f"expected a LoRA for the prompt extractor, but found {list_few(rest)}; a LoRA for "
                "super-resolution belongs in CoZ Load SR LoRA. Take adapter_model.safetensors, "
                f"with its {PEFT_CONFIG_NAME}"
            )
        return tensors


def require_safetensors(path: Path) -> None:
    """Check the start and the size of a file that another reader will read.

    Raises:
        FileNotFoundError, ValueError: If it is no safetensors file, or is cut short.
    """
    is_safetensors = _is_safetensors(path)
    with _name_file_in_errors(path):
        if not is_safetensors:
            raise ValueError(
                "expected safetensors, but found a PyTorch file; take the .safetensors file of the same model"
            )
        with _open_safetensors(path):
            pass


def read_vae(path: Path) -> dict[str, Tensor]:
    """Read the VAE from a safetensors file that holds only a VAE or a whole checkpoint.

    Returns:
        The weights under the names in the file, without `first_stage_model.` or `vae.`.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    content, _ = _read(path)
    with _name_file_in_errors(path):
        names: list[str] = list(content) if is_state_dict(content) else []
        for prefix in ["first_stage_model.", "vae.", ""]:
            if f"{prefix}decoder.conv_in.weight" in names:
                parts = tuple(prefix + part for part in ("encoder.", "decoder.", "quant_", "post_"))
                inside = (name for name in names if name.startswith(parts))
                return {name.removeprefix(prefix): content[name] for name in inside}
        raise ValueError(
            f"expected a VAE with its decoder, but found {list_few(names)}; take the VAE or the "
            "checkpoint of the base model"
        )


def _convert(content: Any, metadata: Mapping[str, str], path: Path) -> StandardKeyWeights:
    if isinstance(content, list):
        return convert_coz_lora(cast("list[Any]", content))
    if isinstance(content, dict) and "state_dict_unet" in content:
        return convert_osediff(cast("dict[str, Any]", content))
    if not is_state_dict(content):
        raise ValueError(
            "expected named tensors, or the list of matrices of Chain-of-Zoom's SR LoRA, but found "
            "something else; take model_20001.pkl, vae_encoder_20001.pt, osediff.pkl or a LoRA"
        )
    if metadata.get("format") == FORMAT:
        return _read_converted(content, metadata)
    if any(".base_layer." in name for name in content):
        return convert_coz_vae_encoder(content)
    if any(name.startswith(PEFT_PREFIX) for name in content):
        return convert_peft(content, _read_peft_config(path.with_name(PEFT_CONFIG_NAME)))
    return convert_lora(content, _parse_json_object(metadata.get("lora_adapter_metadata", "{}")))


def _read_converted(tensors: dict[str, Tensor], metadata: Mapping[str, str]) -> StandardKeyWeights:
    kind, rank, alpha = (metadata.get(name) for name in ("kind", "rank", "alpha"))
    layers = {} if kind == "lora" else pair_factors(tensors)[0]
    lacking = [layer for layer in layers if f"{layer}.alpha" not in tensors]
    if kind not in get_args(Kind) or lacking:
        raise ValueError(
            f"expected a file of tools/convert.py, but found kind {kind} and {list_few(lacking)} without "
            "alpha; convert the original again with this version"
        )
    return StandardKeyWeights(
        cast("Kind", kind),
        tensors,
        None if rank is None else int(rank),
        None if alpha is None else float(alpha),
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


def _read(path: Path) -> tuple[Any, Mapping[str, str]]:
    """Read the content of a file unchecked, and the metadata of a safetensors file."""
    is_safetensors = _is_safetensors(path)
    with _name_file_in_errors(path):
        return _read_safetensors(path) if is_safetensors else (_unpickle(path), {})


def _is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors; raise an error if it is no weight file at all."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name}: expected a weight file, but found none at {path}; check name and folder"
        )
    with _name_file_in_errors(path):
        if path.is_dir():
            raise ValueError("expected a weight file, but found a folder; name the file in it")
        with path.open("rb") as file:
            head = file.read(512)
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
        suffix, found = path.suffix.lower(), ""
        if not head:
            found = "an empty file; download it again"
        elif text.startswith(b"version https://git-lfs"):
            found = "a git-lfs pointer; run git lfs pull, or download the file itself"
        elif text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
            found = "a web page; download the file itself, by the page's download button"
        elif head[8:9] == b"{":
            if suffix not in PICKLE_SUFFIXES:
                return True
            found = "safetensors; rename it to end in .safetensors"
        elif head.startswith(b"PK\x03\x04") or head[0] == pickle.PROTO[0]:
            if suffix not in SAFETENSORS_SUFFIXES:
                return False
            found = "a PyTorch file; rename it to end in .pt"
        expected = (
            "safetensors" if suffix in SAFETENSORS_SUFFIXES else "a PyTorch or safetensors file"
        )
        raise ValueError(
            f"expected {expected}, but found {found or f'a file that begins with {head[:8]!r}'}"
            f"{'' if found else '; download it again'}"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _open_safetensors(path) as file:
        names: list[str] = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


@contextmanager
def _open_safetensors(path: Path) -> Generator[Any]:
    try:
        with cast("Any", safe_open)(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"expected safetensors, but found that {DAMAGED} ({error!s:.150})"
        ) from error


def _unpickle(path: Path) -> Any:
    try:
        return _detach_tensors(torch.load(path, map_location="cpu", weights_only=True))
    # A damaged or hostile pickle can raise any exception; 13 types were seen.
    except Exception as error:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
        if code := re.search(r"GLOBAL ([\w.]{1,99})", str(error)):
            found = f"a call of {code[1]}, which does not run here; take the file of its authors"
        elif is_archive:
            found = "another zip archive, or a damaged file; unpack it, or download it again"
        else:
            found = f"that {DAMAGED}"
        raise ValueError(f"expected a PyTorch file of weights alone, but found {found}") from error


def _detach_tensors(content: Any, depth: int = 2) -> Any:
    """Copy the content without a pickle's attributes, by which a hostile file can override methods."""
    if isinstance(content, Tensor):
        return Tensor.detach(content)
    if depth and isinstance(content, dict):
        items = dict[Any, Any].items(cast("dict[Any, Any]", content))
        return {name: _detach_tensors(value, depth - 1) for name, value in items}
    if depth and isinstance(content, list):
        return [_detach_tensors(value, depth - 1) for value in cast("list[Any]", content)]
    return content


@contextmanager
def _name_file_in_errors(path: Path) -> Generator[None]:
    """Put the name of the file before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
