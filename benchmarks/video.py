"""Measure time and memory of CoZ Zoom Video on the real server, on the CPU. Linux only.

The chain has 4 steps at 512 pixels. Its source is 12 megapixels of noise, the slowest content. Two videos
are made, the first with 2 seconds for each step, the second with 6. Limits: the first takes at most 20 s on
two cores, ComfyUI's Save Video included. Each takes at most 300 MB more than the chain alone.
"""

import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from tools.host.client import ServerClient, run_prompt
from tools.host.workflow import Prompt, find_node
from tools.image_file import to_png

from .chain import make_prompt
from .memory import read_peak, start_host

STEPS = 4
SECONDS_PER_STEP = 2.0
SIZE = (4000, 3000)
MAX_SECONDS = 20
MAX_GROWTH_BYTES = 300 * 10**6
LONGER_FACTOR = 3


def make_chain(picture: str) -> Prompt:
    workflow = make_prompt(0.4)
    loop = find_node(workflow, "CoZChainLoop")
    workflow[loop]["inputs"]["steps"] = STEPS
    workflow[find_node(workflow, "CoZSamplePicture")] = {
        "class_type": "LoadImage",
        "inputs": {"image": picture},
    }
    workflow["scales"] = {"class_type": "PreviewImage", "inputs": {"images": [loop, 1]}}
    return workflow


def make_video(workflow: Prompt, seconds_per_step: float) -> Prompt:
    settings = {
        "chain": [find_node(workflow, "CoZChainLoop"), 3],
        "seconds_per_step": seconds_per_step,
        "fps": 24.0,
        "easing": "none",
        "hold": 0.5,
        "reverse": False,
        "width": 0,
        "height": 0,
    }
    save = {"video": ["video", 0], "filename_prefix": "video", "format": "auto", "codec": "auto"}
    return workflow | {
        "video": {"class_type": "CoZZoomVideo", "inputs": settings},
        "save": {"class_type": "SaveVideo", "inputs": save},
    }


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("video: reads /proc, so it runs on Linux only")
    noise = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
    with start_host("--cpu") as (url, process):
        workflow = make_chain(ServerClient(url).upload(to_png(Image.fromarray(noise))))
        run_prompt(url, workflow)
        # The first encoding loads libraries that stay in memory and do not count.
        run_prompt(url, make_video(workflow, 0.1))
        seconds, grown = [], []
        for factor in (1, LONGER_FACTOR):
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", "utf-8")  # resets the peak
            before = process.memory_info().rss
            start = time.perf_counter()
            run_prompt(url, make_video(workflow, SECONDS_PER_STEP * factor))
            seconds.append(time.perf_counter() - start)
            grown.append(read_peak(process) - before)
    print(
        f"video: {STEPS} steps of {SECONDS_PER_STEP:g} s at 512 px from 12 megapixels in "
        f"{seconds[0]:.1f} s (limit: {MAX_SECONDS}), with {grown[0] / 1e6:.0f} MB above the chain "
        f"(limit: {MAX_GROWTH_BYTES / 1e6:.0f}); {LONGER_FACTOR} times as long in {seconds[1]:.1f} s, with "
        f"{grown[1] / 1e6:.0f} MB"
    )
    if seconds[0] > MAX_SECONDS or max(grown) > MAX_GROWTH_BYTES:
        raise SystemExit("video: over the limit")


if __name__ == "__main__":
    main()
