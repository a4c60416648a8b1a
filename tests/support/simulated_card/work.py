"""What the card was asked to do."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Transfer(NamedTuple):
    """A copy between the CPU's memory and the card's."""

    to_card: bool
    bytes: int
    blocks: bool
    """Whether the CPU waits for its end. It does not from or to pinned memory with ``non_blocking``."""


@dataclass
class Work:
    """Counts since the start of the card, or between two moments (``since``)."""

    kernels: int = 0
    """Operations that compute or copy on the card. A view, a shape and an empty tensor are none."""
    reads: Counter[str] = field(default_factory=Counter)
    """By operation, how often the CPU waited for a value of the card: an item, or the size of a result."""
    transfers: list[Transfer] = field(default_factory=list)
    flops: int = 0
    """By the formulae of torch.utils.flop_counter."""
    bytes_read: int = 0
    """Of the card's memory by its kernels, if each reads each operand once."""

    @property
    def scalar_reads(self) -> int:
        return sum(self.reads.values())

    @property
    def waits(self) -> int:
        """How often the CPU waited for the card: reads, and copies from it that block."""
        return self.scalar_reads + sum(t.blocks and not t.to_card for t in self.transfers)

    def since(self, before: "Work") -> "Work":
        return Work(
            self.kernels - before.kernels,
            self.reads - before.reads,
            self.transfers[len(before.transfers) :],
            self.flops - before.flops,
            self.bytes_read - before.bytes_read,
        )

    def copy(self) -> "Work":
        return self.since(Work())
