"""Time the metrics that need no weights on a frame of 512 x 512, on one core.

Limit: 0.3 s of CPU time for all of them.
"""

import time

import torch

from coz.resample import resize
from tools.evaluate.metrics import WEIGHTLESS_MEASURES, ComparedImages

SIDE = 512
RUNS = 9
MAX_SECONDS = 0.3


def main() -> None:
    torch.set_num_threads(1)
    truth = resize(torch.rand(1, 3, SIDE // 8, SIDE // 8), SIDE, SIDE).clamp(0, 1).contiguous()
    sr = (truth + 0.05 * torch.randn(truth.shape)).clamp(0, 1)
    lq = resize(truth, SIDE // 4, SIDE // 4).clamp(0, 1)
    images = ComparedImages(sr, lq, lq, truth)
    total = 0.0
    for name, measure in WEIGHTLESS_MEASURES.items():
        times = []
        with torch.inference_mode():
            for _ in range(RUNS):
                start = time.process_time()
                measure(images)
                times.append(time.process_time() - start)
        # The minimum: other programs on this machine only make a run slower.
        best = min(times)
        total += best
        print(f"metrics: {name} {1000 * best:.1f} ms at {SIDE} x {SIDE}")
    print(f"metrics: together {total:.3f} s (limit: {MAX_SECONDS:.1f} s)")
    if total > MAX_SECONDS:
        raise SystemExit("metrics: over the limit")


if __name__ == "__main__":
    main()
