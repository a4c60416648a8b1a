"""Read the content of weight files without running any code in them."""

import pickle
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

SAFETENSORS_SUFFIXES = {".safetensors", ".sft"}
PICKLE_SUFFIXES = {".pkl", ".pt", ".pth", ".bin", ".ckpt"}

MAX_READ_BYTES = 2**30
"""A larger PyTorch file is mapped into memory: only the tensors that are used are read."""

DAMAGED_TEXT = "it is damaged or cut short; download it again"


def read_content(path: Path) -> tuple[Any, Mapping[str, str]]:
    """Read the content of a weight file, without checking what it holds, and its metadata.

    The metadata is empty unless the file is safetensors.
    """
    is_pytorch = not is_safetensors(path)
    with name_file_in_errors(path):
        return (unpickle(path), {}) if is_pytorch else _read_safetensors(path)


def is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors; raise an error if it is no weight file at all."""
    if not path.exists():
        raise FileNotFoundError(
            f"{path.name}: expected a weight file, but found none at {path}; check name and folder"
        )
    with name_file_in_errors(path):
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
            found = f"safetensors that ends in {suffix}; rename it to end in .safetensors"
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
    with open_safetensors(path) as file:
        names: list[str] = list(file.keys())
        return {name: file.get_tensor(name) for name in names}, file.metadata() or {}


@contextmanager
def open_safetensors(path: Path) -> Generator[Any]:
    """Open a safetensors file. Opening it checks its header and its size."""
    try:
        with cast("Any", safe_open)(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"expected safetensors, but found that {DAMAGED_TEXT} ({error!s:.150})"
        ) from error


def unpickle(path: Path) -> Any:
    """Read a PyTorch file, without checking what it holds."""
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    is_mapped = is_archive and path.stat().st_size > MAX_READ_BYTES
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
        return _detach_tensors(content)
    # A damaged or hostile pickle can raise any exception; 13 types were seen.
    except Exception as error:
        if code := re.search(r"GLOBAL ([\w.]{1,99})", str(error)):
            found = (
                f"a call of {code[1]}, which is never run, for safety; download the original file "
                "from the authors of the model"
            )
        elif is_archive:
            found = "another zip archive, or a damaged file; unpack it, or download it again"
        else:
            found = f"that {DAMAGED_TEXT}"
        raise ValueError(f"expected a PyTorch file of weights alone, but found {found}") from error


def _detach_tensors(content: Any, depth: int = 2) -> Any:
    """Copy the content without the attributes that a hostile pickle can add to override methods."""
    if isinstance(content, Tensor):
        return Tensor.detach(content)
    if depth and isinstance(content, dict):
        items = dict[Any, Any].items(cast("dict[Any, Any]", content))
        return {name: _detach_tensors(value, depth - 1) for name, value in items}
    if depth and isinstance(content, list):
        return [_detach_tensors(value, depth - 1) for value in cast("list[Any]", content)]
    return content


@contextmanager
def name_file_in_errors(path: Path) -> Generator[None]:
    """Put the name of the file before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
