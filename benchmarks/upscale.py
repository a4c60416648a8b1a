"""Compare CPU time and memory of Full-Image SR with ComfyUI's Upscale Image (using Model). Linux only.

Both run the same model on the same 2048 x 2048 image in turns. Limits with tiles of 1904 pixels:
without a color fix, at most 1.15 times the CPU time of ComfyUI's node, and no higher memory peak; with the
color fix wavelet, at most 1.25 times its CPU time.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from PIL import Image

from coz.render.pillow import from_pillow
from coz.tiles.plan import plan_tiles
from tools.host import ROOT
from tools.host.in_process import load_pack

from .memory import read_peak

SIDE, SCALE = 2048, 4
RUNS_BY_TILE = {1904: 5, 1024: 1, 512: 1}
"""Tile size -> number of runs. The limits apply to the first tile size."""
MAX_TIME_RATIO = 1.15
COLOR_FIX_TILE, COLOR_FIX_PAIRS = 1904, 2
MAX_COLOR_FIX_TIME_RATIO = 1.25
MODEL = "coz_lite_x4.safetensors"


def measure(run: Callable[[], object]) -> tuple[float, int]:
    """Return (CPU seconds, bytes by which the peak exceeds the memory before)."""
    process = psutil.Process()
    before = process.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # resets the peak
    start = time.process_time()
    run()
    return time.process_time() - start, read_peak(process) - before


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("upscale: reads /proc, so it runs on Linux only")
    load_pack(on_cpu=True)
    torch.set_num_threads(1)  # otherwise threads that wait for each other count as CPU time
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader

    import nodes

    model = UpscaleModelLoader.execute(MODEL)[0]
    photograph = Image.open(ROOT / "pictures" / "astronaut.png").convert("RGB")
    resized = photograph.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    image = from_pillow(resized).movedim(1, -1).contiguous()
    chosen = {"backbone": "upscale model", "upscale_model": model, "resampling": "bicubic"}

    def run_ours(tile: int, color_fix: str = "none") -> None:
        layout = json.dumps(plan_tiles(SIDE, SIDE, SCALE, tile, tile // 4))
        inputs = image, "", 1, layout, chosen, 0, color_fix, 0.0, image
        nodes.NODE_CLASS_MAPPINGS["CoZTiles"].execute(*inputs)

    is_over = False
    with torch.inference_mode():
        ImageUpscaleWithModel.execute(model, image[:, :256, :256])  # warms both up
        for tile, pairs in RUNS_BY_TILE.items():
            ratios, peaks = [], []
            for _ in range(pairs):
                theirs = measure(lambda: ImageUpscaleWithModel.execute(model, image))
                ours = measure(lambda tile=tile: run_ours(tile))
                ratios.append(ours[0] / theirs[0])
                peaks.append((ours[1], theirs[1]))
            ratio = statistics.median(ratios)
            own_peak, host_peak = (max(peak) for peak in zip(*peaks, strict=True))
            print(
                f"upscale: tile {tile}: {ratio:.3f} times the CPU time of ComfyUI's node "
                f"(limit at 1904: {MAX_TIME_RATIO}; each pair: {', '.join(f'{r:.3f}' for r in ratios)}), "
                f"peak {own_peak / 1e9:.2f} GB, that of ComfyUI's node {host_peak / 1e9:.2f} GB",
                flush=True,
            )
            is_first = tile == next(iter(RUNS_BY_TILE))
            is_over |= is_first and (ratio > MAX_TIME_RATIO or own_peak > host_peak)
        color_fix_ratio = min(
            measure(lambda: run_ours(COLOR_FIX_TILE, "wavelet"))[0]
            / measure(lambda: ImageUpscaleWithModel.execute(model, image))[0]
            for _ in range(COLOR_FIX_PAIRS)
        )
    print(
        f"upscale: tile {COLOR_FIX_TILE} with wavelet: {color_fix_ratio:.3f} times the CPU time of "
        f"ComfyUI's node (limit: {MAX_COLOR_FIX_TIME_RATIO})"
    )
    if is_over or color_fix_ratio > MAX_COLOR_FIX_TIME_RATIO:
        raise SystemExit("upscale: over the limit")


if __name__ == "__main__":
    main()
