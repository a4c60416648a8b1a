"""Random weights that let a signal through, however deep the network is."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

SHARPNESS = 3
"""Of the attention: with less, every token follows from the one before it, and that is itself."""

LAYOUTS = Path(__file__).parents[1] / "data" / "oracles" / "layouts.json"


@cache
def read_layouts() -> dict[str, dict[str, list[int]]]:
    """Read the recorded names and shapes of the weights of networks, in the order of the network."""
    return json.loads(LAYOUTS.read_text("utf-8"))


def draw_recorded(layout: str, seed: int = 0) -> dict[str, Tensor]:
    """Draw the weights that `randomise` gives the network of that layout, without its library."""
    return draw_weights(read_layouts()[layout], seed)


def draw_weights(
    layout: Mapping[str, Sequence[int]], seed: int, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    generator = torch.Generator(device).manual_seed(seed)
    weights = {}
    for name, shape in layout.items():
        count = torch.Size(shape[1:]).numel()
        scale = 0.02 if len(shape) == 1 else 0.7 * count**-0.5
        if len(shape) == 2 and re.search(r"\.[qk]_proj\b", name):
            scale *= SHARPNESS
        noise = torch.randn(*shape, generator=generator, device=device).mul_(scale)
        # Around 1 where it multiplies, else deep stacks of norms end in nothing.
        is_norm = re.search(r"(norm|ln_q).*weight$", name) and len(shape) == 1
        weights[name] = noise.add_(1) if is_norm else noise
    return weights


def list_shapes(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(weight.shape) for name, weight in network.named_parameters()}


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """The network, changed in place, for inference."""
    drawn = draw_weights(list_shapes(network), seed, next(network.parameters()).device)
    for name, weight in network.named_parameters():
        weight.data = drawn[name]
    return network.eval().requires_grad_(False)


def are_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts have the same names and values."""
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in found
    )


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
