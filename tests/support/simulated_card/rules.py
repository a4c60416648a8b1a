"""Which operands may meet, as torch has it for a GPU."""

import torch

from .card_tensor import CARD_TYPE, CardTensor

MOVES = {"aten::copy_", "aten::_to_copy", "aten::set_data"}
"""What takes operands of two devices."""

INDEXES = {"aten::index", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}


def is_indexing(func) -> bool:
    return func._schema.name in INDEXES


def check_operands(func, args, kwargs, device: torch.device) -> None:
    """Raise as a GPU would where a tensor of another device meets those of the card.

    Allowed is a CPU tensor of no dimension that is read by an operation on single elements, and CPU
    indices of a tensor of the card.

    Raises:
        RuntimeError: With the words of torch.
    """
    if func._schema.name in MOVES:
        return
    if is_indexing(func):
        check_indices(args)
        return
    arguments = func._schema.arguments
    named = [*zip(arguments, args, strict=False)]
    named += [(a, kwargs[a.name]) for a in arguments if a.name in kwargs]
    for argument, value in named:
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        for tensor in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(tensor, torch.Tensor) or tensor.device == device:
                continue
            is_single = torch.Tag.pointwise in func.tags and tensor.dim() == 0
            is_single &= tensor.device.type == "cpu"
            if is_written or not is_single:
                refuse(func, tensor, device)


def check_indices(args) -> None:
    image, _, *values = args
    if not isinstance(image, CardTensor):
        raise RuntimeError(
            f"indices should be either on cpu or on the same device as the indexed tensor (cpu), got {CARD_TYPE}"
        )
    for value in values[:1]:
        if not isinstance(value, CardTensor) and value.dim() > 0:
            refuse(torch.ops.aten.index_put_.default, value, image.device)


def refuse(func, tensor: torch.Tensor, device: torch.device) -> None:
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {device} and "
        f"{tensor.device}! (in {func}, which got a tensor of shape {tuple(tensor.shape)} there)"
    )
