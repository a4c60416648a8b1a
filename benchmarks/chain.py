"""Measure the time that ComfyUI adds to each step of a chain.

It runs eight steps at 512 pixels on the real server, and in a plain loop with the same crop, resize,
network and color fix, both on the CPU. Limit: ComfyUI adds at most 60 ms to each step.
"""

import statistics
import time

import spandrel
import torch
from PIL import Image

from coz import Target, Window, plan_zoom, wavelet_align
from coz.render.pillow import from_pillow
from coz.resample import crop_mirrored
from coz.zoom import View, zoom
from tools.host import ROOT
from tools.host.client import run_prompt
from tools.host.server import serve
from tools.host.workflow import FIRST_TEMPLATE, Prompt, find_node, read_prompt

STEPS = 8
RUNS = 9
PICTURE = "astronaut.png"
MODEL = "coz_lite_x4.safetensors"
MAX_ADDED_SECONDS = 0.060
MARGIN_PIXELS = 8
"""Pixels around a crop that the model also gets: its reach, as in CoZ Upscale-Model Step."""


def make_prompt(center: float) -> Prompt:
    """Make the first template with 4x steps, and with a preview instead of the viewer."""
    workflow = read_prompt(FIRST_TEMPLATE)
    loop = find_node(workflow, "CoZChainLoop")
    preview = {"class_type": "PreviewImage", "inputs": {"images": [loop, 1]}}
    workflow[find_node(workflow, "CoZZoomViewer")] = preview
    inputs = {"steps": STEPS, "scale": 4, "center_x": center, "center_y": center, "size": 512}
    workflow[loop]["inputs"] |= inputs
    workflow[find_node(workflow, "CoZSamplePicture")]["inputs"]["picture"] = PICTURE
    workflow[find_node(workflow, "UpscaleModelLoader")]["inputs"]["model_name"] = MODEL
    return workflow


def run_bare(model: spandrel.ImageModelDescriptor, source: torch.Tensor, center: float) -> None:
    def super_resolve(view: View, text: str) -> torch.Tensor:
        x, y, w, h = view.window
        seen = Window(
            x - MARGIN_PIXELS, y - MARGIN_PIXELS, w + 2 * MARGIN_PIXELS, h + 2 * MARGIN_PIXELS
        )
        cut = 4 * MARGIN_PIXELS
        return model(crop_mirrored(view.frame, seen))[..., cut:-cut, cut:-cut]

    plan = plan_zoom(*source.shape[-2:], STEPS, target=Target(center, center))
    zoom(source, plan, super_resolve, align=lambda sr, view: wavelet_align(sr, view.zoomed))


def main() -> None:
    model = spandrel.ModelLoader("cpu").load_from_file(ROOT / "models" / MODEL).eval()
    source = from_pillow(Image.open(ROOT / "pictures" / PICTURE).convert("RGB"))
    host_seconds, bare_seconds = [], []
    with serve(arguments=["--cpu"]) as url, torch.inference_mode():
        run_prompt(url, make_prompt(0.5))
        run_bare(model, source, 0.5)
        for i in range(RUNS):
            center = 0.4 + 0.02 * i
            start = time.perf_counter()
            run_bare(model, source, center)
            bare_seconds.append((time.perf_counter() - start) / STEPS)
            times = {
                event["type"]: event["data"]["timestamp"]
                for event in run_prompt(url, make_prompt(center)).events
                if event["type"] in {"execution_start", "execution_success"}
            }
            host_seconds.append(
                (times["execution_success"] - times["execution_start"]) / 1000 / STEPS
            )
    median_host, median_bare = statistics.median(host_seconds), statistics.median(bare_seconds)
    added = statistics.median(a - b for a, b in zip(host_seconds, bare_seconds, strict=True))
    print(
        f"chain: {1000 * median_host:.0f} ms per step in ComfyUI, {1000 * median_bare:.0f} ms in a plain "
        f"loop: {median_host / median_bare:.2f}x, {1000 * added:.0f} ms added "
        f"(limit: {1000 * MAX_ADDED_SECONDS:.0f})"
    )
    if added > MAX_ADDED_SECONDS:
        raise SystemExit("chain: over the limit")


if __name__ == "__main__":
    main()
