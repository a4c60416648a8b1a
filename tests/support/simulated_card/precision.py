"""What a GPU computes with fewer bits than the CPU, or not at all."""

import torch

PRODUCTS = {"aten::mm": (0, 1), "aten::bmm": (0, 1), "aten::addmm": (1, 2), "aten::baddbmm": (1, 2)}
"""Products of matrices, and which arguments are multiplied."""

DROPPED_BITS = 13
"""Of the 23 bits of a float32's mantissa, which TF32 lacks."""


def round_products(func, args: list) -> list:
    """Round the operands of a float32 product to TF32, where torch is allowed to."""
    places = PRODUCTS.get(func._schema.name, ())
    if torch.backends.cuda.matmul.fp32_precision != "tf32":
        return args
    return [round_to_tf32(x) if k in places else x for k, x in enumerate(args)]


def round_to_tf32(x: torch.Tensor) -> torch.Tensor:
    if x.dtype != torch.float32:
        return x
    half = 1 << (DROPPED_BITS - 1)
    bits = x.contiguous().view(torch.int32) + half
    return (bits & -(1 << DROPPED_BITS)).view(torch.float32)


def refuse_float64(tensors) -> None:
    """Raise as Apple's GPUs do, which have no float64.

    Raises:
        TypeError: If a tensor is of that kind.
    """
    for x in tensors:
        if isinstance(x, torch.Tensor) and x.dtype == torch.float64:
            raise TypeError(
                "Cannot convert a CARD Tensor to float64 dtype as the CARD framework doesn't support float64. "
                "Please use float32 instead."
            )
