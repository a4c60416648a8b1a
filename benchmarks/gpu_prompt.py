"""Time VLM Prompt Extractor on two images, with random weights of Qwen2.5-VL-3B's size.

Goal: it takes at most twice as long as `sr` in a step of gpu_chain. The floor of a token is the time to read
the language model's weights once, at the rate measured here. The estimates are computed from the measured
rates and the counts of benchmarks.card. This needs a GPU of 12 GB, and 8 GB of disk in TMPDIR.

python -m benchmarks.gpu_prompt [--toy]     --toy: two language layers, 112 pixels, on the CPU
"""

import argparse
import datetime
import gc
import statistics
import tempfile
import time

import torch

from tests.support.random_qwen import qwen25vl
from tools.host.in_process import load_pack

from .card_counts import estimate_seconds
from .gpu_chain import GIB, measure_rates, take_medians

RUNS = 3
WEIGHT_FILE = "model.safetensors"
SIZE_3B = {
    "layers": 36,
    "heads": 16,
    "intermediate": 11008,
    "vision_layers": 32,
    "vision_heads": 16,
    "vision_intermediate": 3420,
}


def write_weights(toy: bool, device: torch.device, folder: str) -> None:
    """Write random weights.

    The real size is made on the GPU, because the CPU needs minutes, and in bf16, because fp32 needs 15 GB.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if toy else torch.bfloat16)
    try:
        with device:
            network = qwen25vl(**({} if toy else SIZE_3B))
    finally:
        torch.set_default_dtype(usual)
    network.save_pretrained(folder)


def load_clip(folder: str):
    import folder_paths

    import nodes

    folder_paths.add_model_folder_path("text_encoders", folder)
    return nodes.NODE_CLASS_MAPPINGS["CoZLoadPromptExtractor"].execute(WEIGHT_FILE)[0]


class Clock:
    """Record when the parts of an answer start and end, by wrapping methods of the network."""

    def __init__(self, network, device: torch.device):
        self.device = device
        self.prompt_tokens = 0
        self.spans: dict[str, list[tuple[float, float]]] = {}
        self.wrap(network.visual, "forward", "vision")
        self.wrap(network.model, "forward", "tokens")
        self.wrap(network, "generate", "answer")

    def read_time(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def wrap(self, owner, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def timed(*args, **kwargs):
            if name == "answer":
                self.prompt_tokens = args[0].shape[1]
            start = self.read_time()
            result = inner(*args, **kwargs)
            self.spans.setdefault(name, []).append((start, self.read_time()))
            return result

        setattr(owner, method, timed)

    def time_parts(self, function) -> dict[str, float]:
        self.spans.clear()
        start = self.read_time()
        function()
        total = self.read_time() - start
        starts = [begin for begin, _ in self.spans["tokens"]]
        ((_, end),) = self.spans["answer"]
        # The time of a token runs from the start of its forward call to that of the next call, so it includes
        # the output layer and the choice of the token.
        first, second = starts[:2]
        return {
            "total": total,
            "vision": sum(end - start for start, end in self.spans["vision"]),
            "prefill": second - first,
            "decode": end - second,
            "network": statistics.mean(end - start for start, end in self.spans["tokens"][1:]),
            "tokens": len(starts),
        }


@torch.inference_mode()
def measure(clip, side: int, tokens: int, device: torch.device):
    """Return median times, the prompt's number of tokens, and the bytes of weights read per token."""
    import nodes

    network = clip.cond_stage_model.qwen25vl.transformer
    # No stop tokens, so that the answer always has the maximum length.
    network.model.config.stop_tokens = []
    clock = Clock(network, device)
    previous, view = torch.rand(2, 1, side, side, 3, generator=torch.Generator().manual_seed(0))

    def ask() -> None:
        node = nodes.NODE_CLASS_MAPPINGS["CoZPromptExtractor"]
        node.execute(clip, view, "", max_tokens=tokens, previous_image=previous)

    ask()  # warms up and loads the weights
    times = take_medians([clock.time_parts(ask) for _ in range(RUNS)])
    weight_bytes = sum(
        weight.numel() * weight.element_size() for weight in network.model.parameters()
    )
    return times, clock.prompt_tokens, weight_bytes


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--toy", action="store_true")
    toy = parser.parse_args().toy
    if not toy and not torch.cuda.is_available():
        print("gpu_prompt: no GPU here, so nothing is measured (--toy runs it small, on the CPU)")
        return
    device = torch.device("cpu" if toy else "cuda")
    machine = "CPU" if toy else torch.cuda.get_device_name()
    today = datetime.datetime.now().astimezone().date()
    side, tokens = (112, 8) if toy else (512, 32)
    print(
        f"gpu_prompt: {tokens} tokens from two images at {side} px, {machine}, "
        f"torch {torch.__version__}, {today}",
        flush=True,
    )
    flops_per_second, bandwidth = measure_rates(device)
    load_pack(on_cpu=toy)
    with tempfile.TemporaryDirectory(prefix="coz-") as folder:
        write_weights(toy, device, folder)
        gc.collect()
        if not toy:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        times, prompt_tokens, weight_bytes = measure(load_clip(folder), side, tokens, device)
    peak = "-" if toy else f"{torch.cuda.max_memory_allocated() / GIB:.1f} GiB"
    made = int(times["tokens"])
    token_seconds, floor = times["decode"] / (made - 1), weight_bytes / bandwidth
    rest = times["total"] - sum(times[part] for part in ("vision", "prefill", "decode"))
    print(f"{made} tokens after a prompt of {prompt_tokens}; medians of {RUNS} runs, in seconds")
    for part in ("total", "vision", "prefill", "decode"):
        print(f"{part:24} {times[part]:8.4f}")
    print(f"{'rest':24} {rest:8.4f}")
    print(
        f"{'decode, one token':24} {token_seconds:8.4f}, {times['network']:.4f} of it in the layers"
    )
    print(
        f"{'floor of a token':24} {floor:8.4f}, {weight_bytes / GIB:.2f} GiB at {bandwidth / 1e9:.3g} GB/s"
    )
    print(f"{'ratio to the floor':24} {token_seconds / floor:8.2f}")
    print(f"{'peak memory':24} {peak:>8}")
    if not toy:
        for part, counted in (("vision", "vision"), ("prefill", "prefill"), ("decode", "tokens")):
            estimate = estimate_seconds([counted], flops_per_second, bandwidth)
            print(f"{part:24} {times[part] / estimate:8.2f} times its estimate, {estimate:.4f}")
    if made != tokens:
        raise SystemExit(f"gpu_prompt: {made} tokens instead of {tokens}, so the time is wrong")
    print("gpu_prompt: PASS (compare the total with twice the sr of gpu_chain)")


if __name__ == "__main__":
    main()
