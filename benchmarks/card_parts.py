"""Record the work of the simulated card in each part of a step, for benchmarks.card."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.support.simulated_card import Card, Work

LOAD, TEXT, ENCODE, NETWORK, DECODE, REST = "load", "text", "encode", "network", "decode", "rest"
VISION, PREFILL, TOKENS = "vision", "prefill", "tokens"
SR = (ENCODE, NETWORK, DECODE)
PARTS = (VISION, PREFILL, TOKENS, TEXT, ENCODE, NETWORK, DECODE, REST, LOAD)


@dataclass
class Part:
    """The work of the card in a part of a step, and the peak of its memory in bytes."""

    work: Work = field(default_factory=Work)
    peak: int = 0

    def add(self, work: Work, peak: int) -> None:
        self.work.kernels += work.kernels
        self.work.reads += work.reads
        self.work.transfers += work.transfers
        self.work.flops += work.flops
        self.work.bytes_read += work.bytes_read
        self.peak = max(self.peak, peak)

    def count_gb(self, *, to_card: bool) -> float:
        """Count the GB that were transferred to the card, or from it."""
        return sum(t.bytes for t in self.work.transfers if t.to_card == to_card) / 1e9


def add_parts(parts: Iterable[Part]) -> Part:
    total = Part()
    for part in parts:
        total.add(part.work, part.peak)
    return total


class Recorder:
    """Attributes the work of the card to the innermost part that runs."""

    def __init__(self, card: Card):
        self.card = card
        self.parts: dict[str, Part] = defaultdict(Part)
        self.running = [REST]
        self.before = card.work.copy()
        card.memory.restart_peak()

    def attribute_work(self) -> None:
        """Attribute the work since the last call to the running part."""
        memory, work = self.card.memory, self.card.work
        self.parts[self.running[-1]].add(work.since(self.before), memory.peak)
        memory.restart_peak()
        self.before = work.copy()

    @contextmanager
    def record_part(self, name: str) -> Iterator[None]:
        self.attribute_work()
        self.running.append(name)
        try:
            yield
        finally:
            self.attribute_work()
            self.running.pop()

    def wrap(self, patch: pytest.MonkeyPatch, owner, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def recorded(*args, **kwargs):
            with self.record_part(name):
                return inner(*args, **kwargs)

        patch.setattr(owner, method, recorded)

    @contextmanager
    def record_host(self) -> Iterator[None]:
        """Record the work of each part that ComfyUI runs during the block."""
        import comfy.model_management
        import comfy.sample
        import comfy.sd
        from comfy.text_encoders import llama, qwen_vl

        with pytest.MonkeyPatch.context() as patch:
            self.wrap(patch, comfy.model_management, "load_models_gpu", LOAD)
            self.wrap(patch, comfy.sd.CLIP, "encode_from_tokens_scheduled", TEXT)
            self.wrap(patch, comfy.sd.CLIP, "generate", TOKENS)
            self.wrap(patch, comfy.sd.VAE, "encode", ENCODE)
            self.wrap(patch, comfy.sd.VAE, "decode", DECODE)
            self.wrap(patch, comfy.sample, "sample_custom", NETWORK)
            self.wrap(patch, qwen_vl.Qwen2VLVisionTransformer, "forward", VISION)
            forward = llama.Llama2_.forward

            def recorded(network, x, *args, embeds=None, **kwargs):
                is_first = embeds is not None and embeds.shape[1] > 1
                with self.record_part(PREFILL if is_first else TOKENS):
                    return forward(network, x, *args, embeds=embeds, **kwargs)

            patch.setattr(llama.Llama2_, "forward", recorded)
            yield
        self.attribute_work()
