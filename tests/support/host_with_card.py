"""The real host in this process, told that it has the simulated card: all that is changed of it."""

from contextlib import ExitStack, contextmanager

import pytest

PLACEMENTS = ("default", "gpu only", "offloaded")
"""ComfyUI's default flags, --gpu-only (images between nodes stay on the card), and --novram (weights
stay in the CPU's memory)."""

GIGABYTE = 2**30

RAM = 32 * GIGABYTE


class HostWithCard:
    """The host with its cards and one placement. It can be entered again: its models stay loaded."""

    def __init__(
        self,
        placement: str = "default",
        size: int = 8 * GIGABYTE,
        count: int = 1,
        has_values: bool = True,
    ):
        """Make ``count`` cards with a memory of ``size`` bytes each.

        The host wants 1.2 GB of it to be free, always. Without values it computes in 16 bits and with
        PyTorch's attention, as an NVIDIA GPU, beside ``RAM`` bytes of free memory.
        """
        from .simulated_card import Card  # it makes a device for the whole process

        self.placement = placement
        self.cards = [Card(size, index, has_values) for index in range(count)]
        self.card = self.cards[0]
        self._loaded: list = []

    @property
    def intermediate_device(self):
        """Where the host wants images between nodes."""
        import comfy.model_management

        with self.patched():
            return comfy.model_management.intermediate_device()

    @contextmanager
    def running(self):
        with self.patched(), ExitStack() as stack:
            for card in self.cards:
                stack.enter_context(card)
            yield self.card

    @contextmanager
    def patched(self):
        import comfy.model_management as host
        from comfy.cli_args import args

        states = {"gpu only": host.VRAMState.HIGH_VRAM, "offloaded": host.VRAMState.NO_VRAM}
        memories = {card.device: card.memory for card in self.cards}
        devices = [*memories]
        has_values = self.card.has_values

        def ask(original, name):
            def answer(device=None, *rest, **options):
                device = device or devices[0]
                if device not in memories:
                    return original(device, *rest, **options) if has_values else RAM
                count = getattr(memories[device], name)
                return (count, count) if rest or options else count

            return answer

        changes = {
            "cpu_state": host.CPUState.GPU,
            "vram_state": states.get(self.placement, host.VRAMState.NORMAL_VRAM),
            "current_loaded_models": self._loaded,
            "get_torch_device": lambda: devices[0],
            "get_all_torch_devices": lambda exclude_current=False: devices[exclude_current:],
            "get_total_memory": ask(host.get_total_memory, "size"),
            "get_free_memory": ask(host.get_free_memory, "free"),
            # A CUDA build of torch would be asked for what no card has here.
            "is_nvidia": lambda: False,
            # Values are the CPU's in float32. Without a device it is asked where text encoders run.
            "should_use_fp16": lambda device=None, *a, **k: device is None or not has_values,
            "should_use_bf16": lambda *a, **k: not has_values,
        }
        if not has_values:
            changes["pytorch_attention_flash_attention"] = lambda: True
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(args, "gpu_only", self.placement == "gpu only")
            for name, value in changes.items():
                patch.setattr(host, name, value)
            yield
