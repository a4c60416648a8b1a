"""Tensors of the card."""

import torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from .generator import Generator
from .memory import Allocation

CARD_TYPE = "card"


class Backend:
    """What torch calls as ``torch.card``: the card takes part in nothing that is not asked for."""

    generator: Generator
    """Draws where no other generator is given."""

    is_available = staticmethod(lambda: False)
    is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: Backend.generator.manual_seed(seed))
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    get_amp_supported_dtype = staticmethod(lambda: [torch.float16, torch.bfloat16])


class Hooks(torch._C._acc.PrivateUse1Hooks):
    def is_available(self) -> bool:
        return False

    def has_primary_context(self, dev_id) -> bool:
        return True

    def is_built(self) -> bool:
        return True


_setup_privateuseone_for_python_backend(CARD_TYPE, Backend(), Hooks())

CARD = torch.device(CARD_TYPE, 0)
Backend.generator = Generator(CARD)


def is_card(device) -> bool:
    return device is not None and torch.device(device).type == CARD_TYPE


class CardTensor(torch.Tensor):
    """A tensor of the card: ``inner`` holds its values in CPU memory."""

    inner: torch.Tensor
    allocation: Allocation

    @staticmethod
    def __new__(cls, inner: torch.Tensor, allocation: Allocation, card):
        # A view of a tensor made outside inference mode is none of inference mode's, and may be written to.
        with torch.inference_mode(inner.is_inference()):
            self = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=card.device,
            )
        self.inner, self.allocation, self.card = inner, allocation, card
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        flat = [*args, *(kwargs or {}).values()]
        tensors = [y for x in flat for y in (x if isinstance(x, list | tuple) else [x])]
        card = next(x.card for x in tensors if isinstance(x, CardTensor))
        return card.run(func, args, kwargs or {})

    def __repr__(self, **options):
        return f"CardTensor({self.inner})"

    def __deepcopy__(self, memo):
        copied = memo[id(self)] = self.detach().clone()
        if isinstance(self, torch.nn.Parameter):
            copied = memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad)
        return copied

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, **options):
        raise TypeError(
            "can't convert card:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            "memory first."
        )
