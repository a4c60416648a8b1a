"""Read InvSR's noise predictor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ..networks.noise_predictor import NoisePredictor, read_sizes
from .lora import is_state_dict, list_few
from .weight_file import name_file_in_errors, read_content

PREDICTOR_FILE_NAME = "noise_predictor_sd_turbo_v5.pth"
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that PyTorch's wrappers for training put before the names."""


def read_noise_predictor(path: Path) -> dict[str, Tensor]:
    """Read the weights of InvSR's noise predictor.

    Args:
        path: `noise_predictor_sd_turbo_v5.pth`, its `diftune` variant, or a safetensors file with the same
            names.

    Returns:
        All weights of a `NoisePredictor`, in the dtype of the file. Other weights in the file are
        left out, as in InvSR.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is another kind of file or damaged, or a weight is missing or has another shape.
    """
    content, _ = read_content(path)
    with name_file_in_errors(path):
        if isinstance(content, dict) and "state_dict" in content:
            content = cast("dict[str, Any]", content)["state_dict"]
        weights = content if is_state_dict(content) else {}
        return _pick_weights({_unwrap(name): weight for name, weight in weights.items()})


def _unwrap(name: str) -> str:
    while name.startswith(WRAPPER_PREFIXES):
        name = name.split(".", 1)[1]
    return name


def _pick_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    try:
        with torch.device("meta"):
            expected = NoisePredictor(read_sizes(weights)).state_dict()
    except (KeyError, IndexError) as error:
        raise ValueError(
            f"expected InvSR's noise predictor, but found {list_few(weights)}; take {PREDICTOR_FILE_NAME}"
        ) from error
    for name, weight in expected.items():
        found = tuple(weights[name].shape) if name in weights else "none"
        if found != tuple(weight.shape):
            raise ValueError(
                f"expected {name} to be {tuple(weight.shape)}, but found {found}; take {PREDICTOR_FILE_NAME}"
            )
    return {name: weights[name] for name in expected}
