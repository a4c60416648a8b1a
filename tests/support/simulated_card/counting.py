"""What counts as a kernel, as a read and as floating-point work."""

import math

import torch
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from .card_tensor import CardTensor

READS = {
    "aten::_local_scalar_dense": 1,
    "aten::_unique2": 1,
    "aten::allclose": 1,
    "aten::bincount": 2,
    "aten::equal": 1,
    "aten::masked_select": 1,
    "aten::nonzero": 1,
    "aten::unique_consecutive": 1,
    "aten::unique_dim": 1,
}
"""Operations for which the CPU waits for so many values of the card."""

NO_KERNEL = {
    *("aten::_local_scalar_dense", "aten::_unsafe_view", "aten::_reshape_alias", "aten::alias"),
    *("aten::detach", "aten::empty", "aten::empty_like", "aten::empty_strided", "aten::resize_"),
    *("aten::lift_fresh", "aten::new_empty", "aten::new_empty_strided", "aten::set_"),
}


def is_kernel(func) -> bool:
    schema = func._schema
    is_view = any(a.alias_info and not a.alias_info.is_write for a in schema.arguments)
    is_shape = torch.Tag.inplace_view in func.tags
    return not is_view and not is_shape and schema.name not in NO_KERNEL


def count_reads(func, args, kwargs) -> int:
    """For how many values of the card the CPU waits."""
    name = func._schema.name
    if name == "aten::repeat_interleave":
        return kwargs.get("output_size") is None  # the sum of the repeats is the result's size
    if name in {"aten::index", "aten::index_put_", "aten::index_put"}:
        masks = (torch.bool, torch.uint8)
        return sum(x is not None and x.dtype in masks for x in args[1])
    return READS.get(name, 0)


PICKS = {"aten::embedding", "aten::gather", "aten::index", "aten::index_select"}
"""What reads of its first operand only as many values as it returns."""

OVERWRITES = {"aten::copy_", "aten::fill_", "aten::zero_"}
"""What writes its first operand without reading it."""


def count_bytes(tensor: CardTensor) -> int:
    """Bytes of its values. Those that an expanded tensor repeats count once."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return tensor.element_size() * math.prod(length for length, stride in sides if stride)


def count_bytes_read(func, args, kwargs, result) -> int:
    """Bytes of the card's memory that a kernel reads, if it reads each operand once."""
    name = func._schema.name
    first, *others = [*args, *(value for key, value in kwargs.items() if key != "out")] or [None]
    total = 0
    for value in others if name in PICKS | OVERWRITES else [first, *others]:
        tensors = value if isinstance(value, list | tuple) else [value]
        total += sum(count_bytes(x) for x in tensors if isinstance(x, CardTensor))
    return total + (result.nbytes if name in PICKS else 0)


def count_flops(func, args, kwargs, result) -> int:
    if func._schema.name == "aten::scaled_dot_product_attention":
        query, key, value = (x.shape for x in args[:3])
        heads = query[:-2]  # with grouped queries the others have fewer
        return sdpa_flop_count(query, (*heads, *key[-2:]), (*heads, *value[-2:]))
    formula = flop_registry.get(func._overloadpacket)
    return formula(*args, **kwargs, out_val=result) if formula else 0
