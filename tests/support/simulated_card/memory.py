"""How much of the card's memory is in use."""

import torch


class Memory:
    """Bytes of the card that tensors hold now, and the most that they have held."""

    def __init__(self, size: int):
        self.size = size
        self.live = 0
        self.peak = 0

    @property
    def free(self) -> int:
        return self.size - self.live

    def restart_peak(self) -> None:
        """Forget the peak so far: it is what is live now."""
        self.peak = self.live

    def take(self, count: int) -> None:
        """Hold so many bytes more.

        Raises:
            torch.OutOfMemoryError: If they do not fit.
        """
        if count > self.free:
            raise torch.OutOfMemoryError(
                f"CARD out of memory. Tried to allocate {count:,} bytes. The card has {self.size:,} bytes, of "
                f"which {self.free:,} are free"
            )
        self.live += count
        self.peak = max(self.peak, self.live)


class Allocation:
    """The memory of one storage. All views of the storage share it; it is freed with the last one."""

    def __init__(self, memory: Memory, count: int):
        self.memory = memory
        self.count = 0
        self.resize(count)

    def resize(self, count: int) -> None:
        self.memory.take(count - self.count)
        self.count = count

    def __del__(self):
        self.memory.live -= self.count
