"""Time the color fixes on the CPU.

- Wavelet is compared with the non-separable dilated 3x3 convolution of the authors' code, at 2048 x 2048.
  Limits: it is at least twice as fast, and the results differ by at most 1e-5.
- All color fixes are timed at 512 x 512.
- The CPU time per pixel of each color fix is compared with that of a network of Real-ESRGAN's size (RRDBNet,
  23 blocks of 64 channels, 4x, random weights). Limit: 10 %.
"""

import statistics
import time

import torch
import torch.nn.functional as F
from torch import Tensor

from coz import color_align, wavelet_align
from coz.color.align import WAVELET_LEVELS
from coz.color.method import METHODS

SIDE = 2048
FRAME_SIDE_PIXELS = 512
RUNS = 5
MIN_SPEEDUP = 2.0
TOLERANCE = 1e-5
LQ_SIDE = 48
"""Side of the image that the network enlarges."""
MAX_SHARE_OF_SR = 0.10


def align_dense(sr: Tensor, reference: Tensor, levels: int = WAVELET_LEVELS) -> Tensor:
    """Decompose both images with a non-separable 3x3 kernel, as Chain-of-Zoom's utils/wavelet_color_fix.py."""
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(row, row)[None, None].repeat(sr.shape[1], 1, 1, 1)

    def decompose(image: Tensor) -> tuple[Tensor, Tensor]:
        high = torch.zeros_like(image)
        for level in range(levels):
            padded = F.pad(image, (2**level,) * 4, mode="replicate")
            low = F.conv2d(padded, kernel, groups=sr.shape[1], dilation=2**level)
            high += image - low
            image = low
        return high, image

    return decompose(sr)[0] + decompose(reference)[1]


def time_call(function, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


@torch.inference_mode()
def measure_share_of_sr() -> float:
    """Print the time of each color fix as a share of that of super-resolution; return the largest share."""
    # Imported here because it is slow and the test of align_dense does not need it.
    from spandrel.architectures.ESRGAN import ESRGAN

    torch.set_num_threads(1)
    network, lq = ESRGAN().eval(), torch.rand(1, 3, LQ_SIDE, LQ_SIDE)
    sr, reference = torch.rand(2, 1, 3, SIDE, SIDE)
    network(lq)
    # They run in turns, and the minimum of each counts: the machine may be busy with other work.
    seconds_per_pixel: dict[str, list[float]] = {}
    for _ in range(3):
        spent = time_cpu(network, lq) / (4 * LQ_SIDE) ** 2
        seconds_per_pixel.setdefault("network", []).append(spent)
        for method in METHODS:
            spent = time_cpu(color_align, method, sr, reference) / SIDE**2
            seconds_per_pixel.setdefault(method, []).append(spent)
    least = {name: min(values) for name, values in seconds_per_pixel.items()}
    for method in METHODS:
        print(f"color: {method} {100 * least[method] / least['network']:.2f} % of super-resolution")
    return max(least[method] for method in METHODS) / least["network"]


def time_cpu(function, *arguments) -> float:
    start = time.process_time()
    function(*arguments)
    return time.process_time() - start


def main() -> None:
    sr, reference = torch.rand(2, 1, 3, SIDE, SIDE)
    difference = (wavelet_align(sr, reference) - align_dense(sr, reference)).abs().max().item()
    pairs = [
        (time_call(wavelet_align, sr, reference), time_call(align_dense, sr, reference))
        for _ in range(RUNS)
    ]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    # Minimum memory traffic: each of the 5 levels reads and writes one image twice.
    floor_bytes = 4 * WAVELET_LEVELS * sr.nbytes
    print(
        f"color: {1000 * ours:.0f} ms, dense {1000 * theirs:.0f} ms: {theirs / ours:.1f}x faster "
        f"(limit: {MIN_SPEEDUP:.0f}x), differs by {difference:.1e} (limit: {TOLERANCE:.0e}), "
        f"it moves at least {floor_bytes / ours / 1e9:.1f} GB/s"
    )
    sr, reference = torch.rand(2, 1, 3, FRAME_SIDE_PIXELS, FRAME_SIDE_PIXELS)
    for method in METHODS:
        times = [time_call(color_align, method, sr, reference) for _ in range(RUNS)]
        milliseconds = 1000 * statistics.median(times)
        print(f"color: {method} {milliseconds:.1f} ms at {FRAME_SIDE_PIXELS} x {FRAME_SIDE_PIXELS}")
    share = measure_share_of_sr()
    if theirs / ours < MIN_SPEEDUP or difference > TOLERANCE or share > MAX_SHARE_OF_SR:
        raise SystemExit("color: a limit is missed")


if __name__ == "__main__":
    main()
