"""A GPU simulated in CPU memory: device rules, transfers and memory are tested without one.

``with Card(size) as card:`` makes the device ``CARD``. Its tensors live in CPU memory, but refuse to
meet CPU tensors as a GPU's do, and everything that reaches them is counted in ``card.work`` and
``card.memory``. Results are the CPU's, bit for bit, but for matrix products in TF32 where torch is allowed
to (``torch.set_float32_matmul_precision``). With ``has_values=False`` large tensors have only a shape, so
that networks of any size run. With ``has_float64=False`` it refuses float64 as Apple's GPUs do. What it
does not show: time, streams, half
precision that rounds otherwise than on the CPU, and the memory that a kernel takes while it runs.
"""

from .card import Card
from .card_tensor import CARD, CardTensor
from .memory import Memory
from .work import Transfer, Work

__all__ = ["CARD", "Card", "CardTensor", "Memory", "Transfer", "Work"]
