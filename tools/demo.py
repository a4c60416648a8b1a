"""Zoom into a photograph in a real ComfyUI: ``make demo``, or with a photograph of your own

    .venv/bin/python -m tools.demo IMAGE --center 0.3,0.6 --steps 5 --out DIR

It starts a server, runs the bundled workflow on it and stops it. DIR (default: demo/) becomes a
saved chain: source.png, scale_0.png, scale_1.png, ... and chain.json, the record with the window of
each frame. strip.png shows all scales side by side, zoom.webp the whole zoom.
"""

import argparse
import io
import re
import sys
from os.path import relpath
from pathlib import Path
from typing import Any

try:
    import torch
    from PIL import Image
    from tqdm import tqdm
except ModuleNotFoundError as error:
    sys.exit(f"error: {error.name} is missing: run make host, then .venv/bin/python -m tools.demo")

from coz.chain.folder import write_files
from coz.chain.real_pixels import RealPixels
from coz.chain.schema import MAX_STEPS
from coz.chain.zoom_chain import ZoomChain
from coz.render.pillow import from_pillow, to_pillow
from coz.render.strip import draw_label, draw_strip, format_factor
from coz.render.zoom_video import ZoomVideo, plan_zoom_positions
from tools.host.client import Event, PromptError, ServerClient, run_prompt
from tools.host.server import serve
from tools.host.workflow import FIRST_TEMPLATE, Prompt, find_node, read_prompt

from .arguments import OneLineParser, make_whole_number_type
from .host import ROOT, HostError
from .image_file import ImageError, open_image, to_png

STEP_NODE = re.compile(r"coz_(zoom|sr|fix)_(\d+)")  # ids of a step's nodes: see nodes/loop/steps.py
NODES_PER_STEP = 3
FRAMES_PER_STEP = 24
FRAME_MS = 40
FIRST_FRAME_MS, LAST_FRAME_MS = 500, 1200  # the video rests at both ends
WEBP_QUALITY = 85
MAX_UPLOAD_MB = 2000  # ComfyUI's default is 100; a photograph saved as PNG may be larger


class StepBars:
    """Show a progress bar for each step, updated by the server's messages."""

    def __init__(self, steps: int):
        self.steps = steps
        self.bars: list[Any] = []

    def __call__(self, event: Event) -> None:
        if event["type"] == "execution_success":
            self._move_to(self.steps, 1.0)
        elif event["type"] == "progress_state":
            done: dict[int, float] = {}
            for node, state in event["data"]["nodes"].items():
                match = STEP_NODE.fullmatch(node.rpartition(".")[2])
                if match:
                    step = int(match[2])
                    share = state["value"] / state["max"] / NODES_PER_STEP
                    done[step] = done.get(step, 0.0) + share
            for step in sorted(done):
                self._move_to(step, done[step])

    def close(self) -> None:
        if self.bars:
            self.bars[-1].close()

    def _move_to(self, step: int, done: float) -> None:
        while len(self.bars) < step:
            self._advance(1.0)
            self.close()
            self.bars.append(
                tqdm(
                    total=1.0,
                    desc=f"step {len(self.bars) + 1:>2} of {self.steps}",
                    bar_format="{desc} |{bar:40}| {percentage:3.0f}% {elapsed}",
                    disable=None,  # only if the output is not a terminal
                )
            )
        if step == len(self.bars):
            self._advance(done)

    def _advance(self, done: float) -> None:
        if self.bars and done > self.bars[-1].n:
            self.bars[-1].update(min(done, 1.0) - self.bars[-1].n)
            self.bars[-1].refresh()


def make_demo(image: Path | None, center: tuple[float, float] | None, steps: int | None, out: Path):
    """Run the bundled workflow, on ``image`` if it is given, and write the result to ``out``."""
    prompt = read_prompt(FIRST_TEMPLATE)
    sample, loop = find_node(prompt, "CoZSamplePicture"), find_node(prompt, "CoZChainLoop")
    picture = open_image(image or ROOT / "pictures" / prompt[sample]["inputs"]["picture"])
    settings = prompt[loop]["inputs"]
    if image and not center:
        center = 0.5, 0.5
    if center:
        settings["center_x"], settings["center_y"] = center
    settings["steps"] = steps or settings["steps"]
    out.mkdir(parents=True, exist_ok=True)
    print("Starting ComfyUI", flush=True)
    with serve(arguments=["--max-upload-size", str(MAX_UPLOAD_MB)]) as url:
        host = ServerClient(url)
        if image:
            name = host.upload(to_png(picture))
            prompt[sample] = {"class_type": "LoadImage", "inputs": {"image": name}}
        record, files = run_chain(host, prompt, loop)
    print("Making the video", flush=True)
    chain = ZoomChain.from_json(record, tuple(map(from_pillow, [picture, *map(open_png, files)])))
    write_demo(chain, out)


def run_chain(host: ServerClient, prompt: Prompt, loop: str) -> tuple[str, list[bytes]]:
    """Run the prompt and return the chain's record and the PNG files of x_0..x_n."""
    steps = prompt[loop]["inputs"]["steps"]
    bars = StepBars(steps)
    if not sys.stderr.isatty():
        print(f"Zooming in {steps} steps", flush=True)
    try:
        result = run_prompt(host.url, prompt, bars)
    finally:
        bars.close()
    shown = result.outputs[f"{loop}.0.0.coz_collect"]
    return shown["coz_chain"][0], [host.download(image) for image in shown["images"]]


def write_demo(chain: ZoomChain, out: Path) -> None:
    for left in out.glob("scale_*.png"):  # removes what an earlier, longer chain left
        left.unlink()
    write_files(chain, out)
    to_pillow(draw_strip(chain)).save(out / "strip.png")
    write_zoom(chain, out / "zoom.webp", *chain.frames[1].shape[-2:], FRAMES_PER_STEP)


def write_zoom(chain: ZoomChain, path: Path, height: int, width: int, frames_per_step: int) -> None:
    """Save the zoom as an animated WebP file, each frame with the number of its real pixels."""
    # For one small frame, more threads would cost more time than they save.
    torch.set_num_threads(1)
    zoom = ZoomVideo(chain, height, width)
    positions = plan_zoom_positions(zoom.steps, 0, frames_per_step)
    frames = [to_pillow(frame) for frame in zoom.render_frames(positions)]
    for image, t in zip(frames, positions, strict=True):
        source, first = zoom.find_view(0, t), zoom.find_view(1, t)
        share = source.width * source.height / (height * width)
        factor = format_factor(chain.frames[1].shape[-1] / first.width)
        draw_label(
            image, factor, RealPixels(source.width, source.height, share), min(height, width)
        )
    durations = [FRAME_MS] * len(frames)
    durations[0], durations[-1] = FIRST_FRAME_MS, LAST_FRAME_MS
    frames[0].save(
        path,
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=WEBP_QUALITY,
        method=2,
    )


def open_png(file: bytes) -> Image.Image:
    return Image.open(io.BytesIO(file)).convert("RGB")


def parse_center(text: str) -> tuple[float, float]:
    match = re.fullmatch(r"([\d.]+),([\d.]+)", text.replace(" ", ""))
    try:
        x, y = map(float, match.groups() if match else ())
    except ValueError:
        x = y = -1.0
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise argparse.ArgumentTypeError(
            f"expected two fractions 0..1 such as 0.3,0.6, got {text!r}"
        )
    return x, y


def main() -> None:
    parser = OneLineParser(description="Zoom into a photograph in a real ComfyUI.")
    parser.add_argument("image", type=Path, nargs="?", help="your own image file, of any format")
    parser.add_argument(
        "--center", type=parse_center, metavar="X,Y", help="the point to zoom into; 0,0 is top left"
    )
    steps = "number of steps (default: that of the workflow)"
    parser.add_argument("--steps", type=make_whole_number_type(1, MAX_STEPS), help=steps)
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="the folder to write to")
    options = parser.parse_args()
    try:
        make_demo(options.image, options.center, options.steps, options.out)
    except (ImageError, HostError, PromptError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped")
    files = " and ".join(str(options.out / name) for name in ("zoom.webp", "strip.png"))
    print(f"Done. Open {files}")
    print(
        f"Your own image: {relpath(sys.executable)} -m tools.demo IMAGE --center 0.3,0.6 --steps 3"
    )


if __name__ == "__main__":
    main()
