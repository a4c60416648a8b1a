"""Measure memory and time of Full-Image SR with the built-in model. Linux only.

Limits: if an image of 2048 x 2048 is enlarged 4x, peak memory is at most the result's float32 size plus
1 GiB (the idle ComfyUI takes most of that GiB). The time per output pixel differs by at most 15 % between
input sizes.
"""

import sys
from pathlib import Path

from PIL import Image

from tools.host import ROOT
from tools.host.client import ServerClient, run_prompt
from tools.host.workflow import Prompt
from tools.image_file import to_png

from .memory import read_peak, start_host

SIDES = (1024, 2048, 4096)
SCALE = 4
MEMORY_LIMIT_SIDE = 2048
MAX_PEAK_BYTES = (MEMORY_LIMIT_SIDE * SCALE) ** 2 * 3 * 4 + 2**30
MAX_TIME_RATIO = 1.15


def make_prompt(name: str) -> Prompt:
    """Make a prompt that saves only a corner of the result, so that writing the file takes no time."""
    full = {
        "image": ["picture", 0],
        "backbone": "upscale model",
        "backbone.upscale_model": ["model", 0],
        "backbone.resampling": "bicubic",
        "scale": SCALE,
        "passes": 1,
        "tile": 512,
        "overlap": 128,
        "adaptive_overlap": False,
        "prompting": "text",
        "prompt": "",
        "tile_prompts": "",
        "seed": 0,
        "color_fix": "wavelet",
        "consistency": 0.0,
    }
    corner = {"image": ["full", 0], "width": 64, "height": 64, "x": 0, "y": 0}
    nodes = {
        "picture": ("LoadImage", {"image": name}),
        "model": ("UpscaleModelLoader", {"model_name": "coz_lite_x4.safetensors"}),
        "full": ("CoZFullImage", full),
        "corner": ("ImageCrop", corner),
        "shown": ("PreviewImage", {"images": ["corner", 0]}),
    }
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def upload(url: str, side: int) -> str:
    """Resize a photograph to side x side and put it into ComfyUI's input folder."""
    with Image.open(ROOT / "pictures" / "astronaut.png") as file:
        picture = file.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return ServerClient(url).upload(to_png(picture), f"photograph_{side}.png")


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("full_image: reads /proc, so it runs on Linux only")
    seconds_per_pixel, peaks = {}, {}
    for side in SIDES:
        with start_host() as (url, process):
            run_prompt(url, make_prompt(upload(url, 256)))  # loads the model
            graph = make_prompt(upload(url, side))
            Path(f"/proc/{process.pid}/clear_refs").write_text("5", "utf-8")  # resets the peak
            # CPU time is measured, because the machine may be busy with other work.
            before = sum(process.cpu_times()[:2])
            run_prompt(url, graph)
            used = sum(process.cpu_times()[:2]) - before
            seconds_per_pixel[side] = used / (side * SCALE) ** 2
            peaks[side] = read_peak(process)
        print(
            f"full_image: {side} x {side} to {side * SCALE} x {side * SCALE}: "
            f"{1e9 * seconds_per_pixel[side]:.0f} ns of CPU time per pixel, peak {peaks[side] / 1e9:.2f} GB, "
            f"the result {(side * SCALE) ** 2 * 12 / 1e9:.2f} GB"
        )
    ratio = max(seconds_per_pixel.values()) / min(seconds_per_pixel.values())
    print(
        f"full_image: peak {peaks[MEMORY_LIMIT_SIDE] / 1e9:.2f} GB (limit: {MAX_PEAK_BYTES / 1e9:.2f}); the "
        f"slowest size takes {ratio:.2f} times as long per pixel as the fastest (limit: {MAX_TIME_RATIO})"
    )
    if peaks[MEMORY_LIMIT_SIDE] > MAX_PEAK_BYTES or ratio > MAX_TIME_RATIO:
        raise SystemExit("full_image: over the limit")


if __name__ == "__main__":
    main()
