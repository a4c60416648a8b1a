"""Operations on tensors that have a shape and no values: torch's own, on its device meta."""

import mmap
from operator import methodcaller

import torch

from .counting import count_reads

LARGEST_VALUES = 2**16
"""Bytes of the largest tensor that holds values on a card without: positions, sizes, noise levels."""


def tensors_of(args, kwargs) -> list[torch.Tensor]:
    found = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [x for x in value if isinstance(x, torch.Tensor)]
    return found


def map_tensors(function, value):
    """Apply the function to the tensors in a value, which may be a list of them."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return [map_tensors(function, x) for x in value]
    return value


def drop_values(tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor if it is small, else one of its layout without values."""
    return tensor if tensor.untyped_storage().nbytes() <= LARGEST_VALUES else tensor.to("meta")


def make_zeros(like: torch.Tensor) -> torch.Tensor:
    """Make a CPU tensor of zeros. Its pages take memory once they are written to."""
    count = like.untyped_storage().nbytes()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    values = torch.frombuffer(mmap.mmap(-1, max(count, 8), flags=flags), dtype=torch.uint8)
    values = values[: count // like.itemsize * like.itemsize].view(like.dtype)
    return values.as_strided(like.shape, like.stride(), like.storage_offset())


def needs_no_values(func, args, kwargs) -> bool:
    """Whether an operation is to give a shape only: an operand has no values, or there are many."""
    tensors = tensors_of(args, kwargs)
    if not tensors:
        tensors = [func(*args, **{**kwargs, "device": torch.device("meta")})]
        return tensors[0].untyped_storage().nbytes() > LARGEST_VALUES
    return any(x.is_meta or x.untyped_storage().nbytes() > LARGEST_VALUES for x in tensors)


def run_without_values(func, args, kwargs, stays: bool):
    """Run an operation on shapes. What is read of it is 0, and so is what does not stay on the card."""
    if count_reads(func, args, kwargs):
        result = func(*map_tensors(lambda x: make_zeros(x) if x.is_meta else x, args), **kwargs)
        return map_tensors(drop_values, result)
    if func._schema.name == "aten::copy_" and not args[0].is_meta:
        args[0].zero_()
    to_meta = methodcaller("to", "meta")
    plain = {key: map_tensors(to_meta, value) for key, value in kwargs.items()}
    if "device" in kwargs:
        plain["device"] = torch.device("meta")
    if "generator" in kwargs:
        plain["generator"] = None
    result = func(*map_tensors(to_meta, args), **plain)
    return result if stays else make_zeros(result)
