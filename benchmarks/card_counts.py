"""Keep the counts of benchmarks.card for models of the real sizes, to compare a real GPU with them."""

from collections.abc import Iterable

TFLOP_AND_GB = {
    "vision": (3.411, 22.4),
    "prefill": (4.005, 12.3),
    "tokens": (0.198, 193.1),
    "text": (4.956, 36.5),
    "encode": (1.118, 2.3),
    "network": (2.560, 8.1),
    "decode": (2.515, 4.7),
}
"""Part of the first AR-2 step -> TFLOP, and GB of the card's memory that its kernels read."""

PEAK_GIB = 10.50
"""Peak of a chain of four steps with template 2 and T5 in fp8, on cards of 12 to 24 GB: all weights fit."""


def estimate_seconds(parts: Iterable[str], flops_per_second: float, bandwidth: float) -> float:
    """Estimate the minimum time of parts of a step at these FLOPs and bytes per second.

    A part takes the longer of the times for its arithmetic and for its reads.
    """
    counts = [TFLOP_AND_GB[part] for part in parts]
    return sum(max(1e12 * tflop / flops_per_second, 1e9 * gb / bandwidth) for tflop, gb in counts)
