"""The card: runs what is asked of its tensors on the CPU, by the rules of a GPU, and counts."""

import contextlib
import threading

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from .card_tensor import CARD, Backend, CardTensor, is_card
from .counting import count_flops, count_reads, is_kernel
from .generator import Generator, belongs_to_card
from .memory import Allocation, Memory
from .precision import refuse_float64, round_products
from .rules import MOVES, check_operands, is_indexing
from .work import Transfer, Work

DEFAULT_SIZE = 8 * 2**30
"""Bytes, if no other size is asked for."""

WHOLE = {"aten::scaled_dot_product_attention"}
"""Run as it is on the CPU: a GPU has a kernel for it, and its parts would round otherwise."""


class Card:
    """A context in which there is a device ``CARD`` with so many bytes of memory."""

    device = CARD

    def __init__(self, size: int = DEFAULT_SIZE, has_float64: bool = True):
        self.has_float64 = has_float64
        self.memory = Memory(size)
        self.work = Work()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Card":
        run_thread = threading.Thread.run

        def run_with_card(thread) -> None:
            with self._modes():
                run_thread(thread)

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
        """Torch's modes hold for one thread."""
        with _Factories(self), _Operations(self):
            yield

    def put(self, tensor: torch.Tensor) -> CardTensor:
        """A copy of a CPU tensor on the card, which is not counted as a transfer."""
        inner = tensor.detach().clone()
        return CardTensor(inner, Allocation(self.memory, inner.untyped_storage().nbytes()), self)

    def run(self, func, args, kwargs):
        """Run one operation of torch's dispatcher, of which something is the card's or may be."""
        tensors = _tensors_of(args, kwargs)
        on_card = [x for x in tensors if isinstance(x, CardTensor)]
        name = func._schema.name
        if name == "aten::_has_compatible_shallow_copy_type":
            return not on_card  # Module.to then makes new parameters: ``data`` would keep ``inner``
        if name in {"aten::is_pinned", "aten::pin_memory", "aten::_pin_memory"}:
            return _pin(func, args[0])
        wants_card = any(is_card(x) for x in _devices_of(args, kwargs))
        if not on_card and not wants_card:
            _check_generator(kwargs, is_on_card=False)
            return func(*args, **kwargs)
        if _is_composite(func):
            with _Operations(self):
                return func.decompose(*args, **kwargs)
        if on_card:
            check_operands(func, args, kwargs)
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
            result = func(*plain_args, **plain)
        if stays and not self.has_float64:
            results = result if isinstance(result, list | tuple) else [result]
            refuse_float64([*results, *(plain_args if name in MOVES else [])])
        if name == "aten::copy_":
            to_card = isinstance(args[0], CardTensor)
            other = args[1] if to_card else args[0]
            non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            blocks = not (non_blocking and _is_pinned(other))
            self._count_copy(isinstance(args[1], CardTensor), to_card, args[0], blocks)
        elif name == "aten::_to_copy":
            # To the CPU torch takes pinned memory of its own accord.
            is_pinned = not stays or _is_pinned(args[0])
            blocks = not (kwargs.get("non_blocking") and is_pinned)
            self._count_copy(bool(on_card), stays, result, blocks)
        elif is_kernel(func) and stays:
            self.work.kernels += 1
        if is_indexing(func):
            self._count_indices(args[1])
        if on_card:
            count_reads(self.work.reads, func, plain_args, plain)
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

    def _count_copy(self, from_card: bool, to_card: bool, result, blocks: bool) -> None:
        if from_card and to_card:
            self.work.kernels += 1
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
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is torch.Tensor.new_tensor and isinstance(args[0], CardTensor):
            return torch.tensor(*args[1:], **{"dtype": args[0].dtype, **kwargs}).to(CARD)
        indexes = func in {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
        if indexes and isinstance(args[0], CardTensor):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            index = tuple(torch.tensor(x).to(CARD) if isinstance(x, list) else x for x in index)
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


def _tensors_of(args, kwargs) -> list[torch.Tensor]:
    found = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [x for x in value if isinstance(x, torch.Tensor)]
    return found


def _devices_of(args, kwargs) -> list[torch.device]:
    return [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)]


def _unwrap(value):
    if isinstance(value, CardTensor):
        return value.inner
    if isinstance(value, list | tuple):
        return [_unwrap(x) for x in value]
    return value


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
