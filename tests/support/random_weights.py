"""Random weights that let a signal through, however deep the network is."""

import re

import torch
from torch import nn

SHARPNESS = 3
"""Of the attention: with less, every token follows from the one before it, and that is itself."""


def randomise(network: nn.Module, seed: int) -> nn.Module:
    """The network, changed in place, for inference."""
    generator = torch.Generator(next(network.parameters()).device).manual_seed(seed)
    for name, weight in network.named_parameters():
        scale = 0.02 if weight.ndim == 1 else 0.7 * weight[0].numel() ** -0.5
        if weight.ndim == 2 and re.search(r"\.[qk]_proj\b", name):
            scale *= SHARPNESS
        noise = torch.randn(weight.shape, generator=generator, device=weight.device) * scale
        # Around 1 where it multiplies, else deep stacks of norms end in nothing.
        is_norm = re.search(r"(norm|ln_q).*weight$", name) and weight.ndim == 1
        weight.data = noise + bool(is_norm)
    return network.eval().requires_grad_(False)
