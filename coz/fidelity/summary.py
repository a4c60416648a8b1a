"""Summarize a chain for a person: how deep it goes, and how much of it is real."""

from math import isnan, nan

from ..chain.real_pixels import count_real_pixels, describe_real_pixels
from ..chain.zoom_chain import ZoomChain
from ..render.strip import write_factor_label
from .back_projection import describe_agreement


def describe_step(chain: ZoomChain, step: int) -> str:
    """Describe how many real pixels a step shows and, if measured, how well it repeats its input."""
    layer = step + 1
    words = describe_real_pixels(count_real_pixels(chain, layer))
    line = f"{write_factor_label(chain, layer)}: {words}"
    agreement = chain.agreements[step - 1] if chain.agreements else nan
    if isnan(agreement):
        return line
    compared = "its input" if step == 1 else "its invented input"
    return f"{line}, {describe_agreement(agreement, compared)}"


def describe_depth(chain: ZoomChain) -> str:
    """Describe how deep a chain goes and how much of its deepest frame is real."""
    count = "1 step" if chain.steps == 1 else f"{chain.steps} steps"
    real = count_real_pixels(chain, chain.steps + 1)
    words = describe_real_pixels(real)
    if real.share < 1:
        words = f"the deepest frame holds {words}, the rest is invented"
    return f"{count}, {write_factor_label(chain, chain.steps + 1)}: {words}"
