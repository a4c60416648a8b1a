"""The card: runs what is asked of its tensors on the CPU, by the rules of a GPU, and counts."""

import contextlib
import threading

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from .card_tensor import CARD, Backend, CardTensor, is_card
from .counting import count_bytes, count_bytes_read, count_flops, count_reads, is_kernel
from .generator import Generator, belongs_to_card
from .memory import Allocation, Memory
from .no_values import drop_values, map_tensors, needs_no_values, run_without_values, tensors_of
from .precision import refuse_float64, round_products
from .rules import MOVES, check_operands, is_indexing
from .work import Transfer, Work

DEFAULT_SIZE = 8 * 2**30
"""Bytes, if no other size is asked for."""

LARGEST_COPY = 2**20
"""Bytes of the largest matrix that is still copied within the CPU's memory beside a card without values."""

WHOLE = {"aten::scaled_dot_product_attention", "aten::upsample_bicubic2d"}
"""Run as they are on the CPU: a GPU has a kernel for each, and their parts would round otherwise."""


class Card:
    """A context in which there is a device ``CARD``, or one with another index, with so many bytes."""

    running: dict[torch.device, "Card"] = {}  # noqa: RUF012

    def __init__(
        self,
        size: int = DEFAULT_SIZE,
        index: int = CARD.index,
        has_values: bool = True,
        has_float64: bool = True,
    ):
        """``has_values``: whether all its tensors hold values. Else only those of up to ``LARGEST_VALUES``
        bytes do that are made from such. Others take no memory and no time: they are read as 0, and
        copied to the CPU as zeros. Copies of matrices of more than ``LARGEST_COPY`` bytes within the
        CPU's memory are left out, so that weights take none there either."""
        self.device = torch.device(CARD.type, index)
        self.has_float64 = has_float64
        self.memory = Memory(size)
        self.work = Work()
        self.has_values = has_values
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Card":
        run_thread = threading.Thread.run

        def run_with_card(thread) -> None:
            with self._modes():
                run_thread(thread)

        self.running[self.device] = self
        self._stack.callback(self.running.pop, self.device)
        self._replace(threading.Thread, "run", run_with_card)
        self._replace(torch, "Generator", Generator)
        self._stack.enter_context(self._modes())
        return self

    def __exit__(self, *error) -> None:
        self._stack.close()

    def _replace(self, owner, name: str, value) -> None:
        self._stack.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    @contextlib.contextmanager
    def _modes(self):
        """Torch's modes hold for one thread. Those of the first card serve all."""
        if next(iter(self.running.values())) is not self:
            yield
            return
        with _Factories(self), _Operations(self):
            yield

    def put(self, tensor: torch.Tensor) -> CardTensor:
        """A copy of a CPU tensor on the card, which is not counted as a transfer."""
        inner = tensor.detach().clone()
        if not self.has_values:
            inner = drop_values(inner)
        return CardTensor(inner, Allocation(self.memory, inner.untyped_storage().nbytes()), self)

    def run(self, func, args, kwargs):
        """Run one operation of torch's dispatcher, of which something is the card's or may be."""
        tensors = tensors_of(args, kwargs)
        on_card = [x for x in tensors if isinstance(x, CardTensor)]
        name = func._schema.name
        if name == "aten::_has_compatible_shallow_copy_type":
            return not on_card  # Module.to then makes new parameters: ``data`` would keep ``inner``
        if name in {"aten::is_pinned", "aten::pin_memory", "aten::_pin_memory"}:
            return _pin(func, args[0])
        wants_card = any(is_card(x) for x in _devices_of(args, kwargs))
        if not on_card and not wants_card:
            _check_generator(kwargs, is_on_card=False)
            if name == "aten::copy_" and not self.has_values and _is_large_matrix(args[0]):
                return args[0]  # it stays whatever it was, which would be seen in an image
            return func(*args, **kwargs)
        return self._choose(on_card, kwargs)._run(func, args, kwargs, on_card)

    def _choose(self, on_card, kwargs) -> "Card":
        """The card that is asked for, or that of the tensors."""
        device = kwargs.get("device")
        if is_card(device):
            return self.running[torch.device(device.type, device.index or 0)]
        return on_card[0].card if on_card else self

    def _run(self, func, args, kwargs, on_card):
        if _is_composite(func):
            with _Operations(self):
                return func.decompose(*args, **kwargs)
        if on_card:
            check_operands(func, args, kwargs, on_card[0].device)
        return self._run_on_cpu(func, args, kwargs, on_card)

    def _run_on_cpu(self, func, args, kwargs, on_card):
        name = func._schema.name
        device = kwargs.get("device")
        stays = is_card(device) if device is not None else bool(on_card)
        if stays:
            _check_generator(kwargs, is_on_card=True)
        plain = {key: _unwrap(value) for key, value in kwargs.items()}
        if device is not None:
            plain["device"] = torch.device("cpu")
        plain_args = [_unwrap(value) for value in args]
        if stays:
            plain_args = round_products(func, plain_args)
        with _card_random_numbers(func, kwargs) if stays else contextlib.nullcontext():
            if self.has_values:
                result = func(*plain_args, **plain)
            elif needs_no_values(func, plain_args, plain):
                for tensor in _written(func, args):
                    tensor.inner = tensor.inner.to("meta")
                result = run_without_values(func, [_unwrap(x) for x in args], plain, stays)
            else:
                result = map_tensors(drop_values, func(*plain_args, **plain))
        if stays and not self.has_float64:
            results = result if isinstance(result, list | tuple) else [result]
            refuse_float64([*results, *(plain_args if name in MOVES else [])])
        if name == "aten::copy_":
            to_card = isinstance(args[0], CardTensor)
            other = args[1] if to_card else args[0]
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            blocks = not (non_blocking and _is_pinned(other))
            self._count_copy(args[1], to_card, args[0], blocks)
        elif name == "aten::_to_copy":
            # To the CPU torch takes pinned memory of its own accord.
            is_pinned = not stays or _is_pinned(args[0])
            blocks = not (kwargs.get("non_blocking") and is_pinned)
            self._count_copy(args[0], stays, result, blocks)
        elif is_kernel(func) and stays:
            self.work.kernels += 1
            self.work.bytes_read += count_bytes_read(func, args, kwargs, result)
        if is_indexing(func):
            self._count_indices(args[1])
        if on_card and (reads := count_reads(func, plain_args, plain)):
            self.work.reads[name.removeprefix("aten::")] += reads
        if stays:
            self.work.flops += count_flops(func, plain_args, plain, result)
        return self._wrap(func, args, kwargs, result, on_card, stays)

    def _wrap(self, func, args, kwargs, result, on_card, stays):
        """The results as tensors of the card; what was written is itself again."""
        if torch.Tag.inplace_view in func.tags and on_card:
            return _change_shape(func, args, kwargs)
        if func._schema.name == "aten::copy_":
            return args[0]
        for tensor in on_card:  # an ``out`` may have become larger
            tensor.allocation.resize(tensor.inner.untyped_storage().nbytes())
        if isinstance(result, list | tuple):
            return type(result)([self._wrap_one(x, on_card, stays) for x in result])
        return self._wrap_one(result, on_card, stays)

    def _wrap_one(self, result, on_card: list[CardTensor], stays: bool):
        if not isinstance(result, torch.Tensor) or not stays:
            return result
        storage = result.untyped_storage()
        for tensor in on_card:
            if result is tensor.inner:
                return tensor
        for tensor in on_card:
            if storage._cdata == tensor.inner.untyped_storage()._cdata:
                return CardTensor(result, tensor.allocation, self)
        return CardTensor(result, Allocation(self.memory, storage.nbytes()), self)

    def _count_copy(self, source, to_card: bool, result, blocks: bool) -> None:
        from_card = isinstance(source, CardTensor) and source.card is self
        if from_card and to_card:
            self.work.kernels += 1
            self.work.bytes_read += count_bytes(source)
        elif from_card or to_card:
            count = result.numel() * result.element_size()
            self.work.transfers.append(Transfer(to_card, count, blocks))

    def _count_indices(self, indices) -> None:
        for index in indices:
            if isinstance(index, torch.Tensor) and not isinstance(index, CardTensor):
                self.work.transfers.append(Transfer(True, index.nbytes, True))


class _Operations(TorchDispatchMode):
    def __init__(self, card: Card):
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return self.card.run(func, args, kwargs or {})


class _Factories(TorchFunctionMode):
    """What copies Python numbers to the card behind the dispatcher's back is made in two steps."""

    def __init__(self, card: Card):
        super().__init__()
        self.card = card

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in {torch.tensor, torch.as_tensor} and is_card(kwargs.get("device")):
            device, (data, *rest) = kwargs.pop("device"), args
            if isinstance(data, list):  # a GPU, too, reads its values one by one
                data = [x.item() if isinstance(x, CardTensor) else x for x in data]
            return func(data, *rest, **kwargs).to(device)
        if func is torch.Tensor.new_tensor and isinstance(args[0], CardTensor):
            made = torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs})
            return made.to(args[0].device)
        indexes = func in {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
        if indexes and isinstance(args[0], CardTensor):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            device = args[0].device
            index = tuple(torch.tensor(x).to(device) if isinstance(x, list) else x for x in index)
            args = (args[0], index, *args[2:])
        return func(*args, **kwargs)


_composite: dict = {}


def _is_composite(func) -> bool:
    """Whether torch runs it as other operations; outside inference mode these alone arrive here."""
    if func not in _composite:
        key = torch._C.DispatchKey.CompositeImplicitAutograd
        has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key)
        _composite[func] = has_kernel and func._schema.name not in WHOLE
    return _composite[func]


def _is_large_matrix(tensor: torch.Tensor) -> bool:
    return tensor.dim() <= 2 and tensor.nbytes > LARGEST_COPY


def _change_shape(func, args, kwargs):
    """Change the shape of a tensor in place, as torch's own subclasses do it."""
    before = torch._C._meta_in_tls_dispatch_include()
    torch._C._set_meta_in_tls_dispatch_include(True)
    try:
        with no_dispatch():
            func(*args, **kwargs)
    finally:
        torch._C._set_meta_in_tls_dispatch_include(before)
    return args[0]


def _devices_of(args, kwargs) -> list[torch.device]:
    return [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)]


def _unwrap(value):
    return map_tensors(lambda x: x.inner if isinstance(x, CardTensor) else x, value)


def _written(func, args) -> list[CardTensor]:
    pairs = zip(func._schema.arguments, args, strict=False)
    return [
        x for a, x in pairs if a.alias_info and a.alias_info.is_write and isinstance(x, CardTensor)
    ]


def _is_pinned(tensor: torch.Tensor) -> bool:
    if isinstance(tensor, CardTensor):
        return False
    return getattr(tensor.untyped_storage(), "is_pinned_by_card", False)


def _pin(func, tensor: torch.Tensor):
    if func._schema.name == "aten::is_pinned":
        return _is_pinned(tensor)
    if isinstance(tensor, CardTensor):
        raise RuntimeError("cannot pin 'card' only dense CPU tensors can be pinned")
    if _is_pinned(tensor):
        return tensor
    pinned = tensor.clone()
    pinned.untyped_storage().is_pinned_by_card = True
    return pinned


def _check_generator(kwargs, is_on_card: bool) -> None:
    generator = kwargs.get("generator")
    if generator is not None and belongs_to_card(generator) != is_on_card:
        wanted, found = ("card", "cpu") if is_on_card else ("cpu", "card")
        raise RuntimeError(f"Expected a '{wanted}' device type for generator but found '{found}'")


@contextlib.contextmanager
def _card_random_numbers(func, kwargs):
    """Draw from the card's own generator where none is given."""
    if torch.Tag.nondeterministic_seeded not in func.tags or kwargs.get("generator") is not None:
        yield
        return
    before = torch.get_rng_state()
    torch.set_rng_state(Backend.generator.get_state())
    yield
    Backend.generator.set_state(torch.get_rng_state())
    torch.set_rng_state(before)
