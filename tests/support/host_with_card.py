"""The real host in this process, told that it has the simulated card: all that is changed of it."""

from contextlib import contextmanager

import pytest

PLACEMENTS = ("default", "gpu only", "offloaded")
"""ComfyUI's default flags, --gpu-only (images between nodes stay on the card), and --novram (weights
stay in the CPU's memory)."""

GIGABYTE = 2**30

RAM = 32 * GIGABYTE


class HostWithCard:
    """The host with one card and one placement. It can be entered again: its models stay loaded."""

    def __init__(
        self, placement: str = "default", size: int = 8 * GIGABYTE, has_values: bool = True
    ):
        """``size``: of the card's memory in bytes. The host wants 1.2 GB of it to be free, always.

        Without values it computes in 16 bits and with PyTorch's attention, as an NVIDIA GPU, beside
        ``RAM`` bytes of free memory.
        """
        from .simulated_card import Card  # it makes a device for the whole process

        self.placement = placement
        self.card = Card(size, has_values)
        self._loaded: list = []

    @property
    def intermediate_device(self):
        """Where the host wants images between nodes."""
        import comfy.model_management

        with self.patched():
            return comfy.model_management.intermediate_device()

    @contextmanager
    def running(self):
        with self.patched(), self.card:
            yield self.card

    @contextmanager
    def patched(self):
        import comfy.model_management as host
        from comfy.cli_args import args

        states = {"gpu only": host.VRAMState.HIGH_VRAM, "offloaded": host.VRAMState.NO_VRAM}
        card, memory = self.card.device, self.card.memory
        has_values = self.card.has_values

        def ask(original, of_card):
            def answer(device=None, *rest, **options):
                if device is not None and device != card:
                    return original(device, *rest, **options) if has_values else RAM
                return (of_card(), of_card()) if rest or options else of_card()

            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(args, "gpu_only", self.placement == "gpu only")
            patch.setattr(host, "cpu_state", host.CPUState.GPU)
            patch.setattr(
                host, "vram_state", states.get(self.placement, host.VRAMState.NORMAL_VRAM)
            )
            patch.setattr(host, "current_loaded_models", self._loaded)
            patch.setattr(host, "get_torch_device", lambda: card)
            patch.setattr(host, "get_total_memory", ask(host.get_total_memory, lambda: memory.size))
            patch.setattr(host, "get_free_memory", ask(host.get_free_memory, lambda: memory.free))
            # A CUDA build of torch would be asked for what no card has here.
            patch.setattr(host, "is_nvidia", lambda: False)
            if not has_values:
                patch.setattr(host, "pytorch_attention_flash_attention", lambda: True)
            # Values are the CPU's in float32. Without a device it is asked where text encoders run.
            patch.setattr(
                host,
                "should_use_fp16",
                lambda device=None, *a, **k: device is None or not has_values,
            )
            patch.setattr(host, "should_use_bf16", lambda *a, **k: not has_values)
            yield
