"""Make the templates' thumbnails: python -m tools.thumbnail [DIR]

The first template shows what ``make demo`` wrote into DIR (default: demo/), and the whole picture
with a built-in model what a run of it gives. The others need weights that are not here: they show
their picture, and where its workflow zooms or which tiles it makes.
"""

import io
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image, ImageDraw, ImageFont

from coz.geometry import Target, first_frame, plan_steps, tile_layout

from .client import run_prompt
from .host import ROOT
from .picture import open_picture
from .server import serve
from .workflow import TEMPLATE, Prompt, find_node, read_prompt

PANELS = 4
GAP = 8
SIDE = 400  # of a panel; the template browser shows the square at 230 to 350 pixels
QUALITY = 86
SMALLEST = 12  # side of a window that can still be seen
LABELLED = 40


def thumbnail(strip: Image.Image) -> Image.Image:
    """The first four scales of a strip, two by two."""
    side = strip.height
    sheet = Image.new("RGB", (2 * SIDE + GAP, 2 * SIDE + GAP), "white")
    for i in range(PANELS):
        left = i * (side + GAP)
        panel = strip.crop((left, 0, left + side, side)).resize((SIDE, SIDE))
        sheet.paste(panel, (i % 2 * (SIDE + GAP), i // 2 * (SIDE + GAP)))
    return sheet


def sample(prompt: Prompt) -> Image.Image:
    name = prompt[find_node(prompt, "CoZSamplePicture")]["inputs"]["picture"]
    return open_picture(ROOT / "pictures" / name)


def windows(prompt: Prompt) -> Image.Image:
    """The first frame of a workflow, with the windows of its steps."""
    zooms = [n["inputs"] for n in prompt.values() if n["class_type"] == "CoZCropCenterZoom"]
    if zooms:  # wired by hand
        loop = prompt[find_node(prompt, "CoZFitImage")]["inputs"]
        loop |= {"scale": zooms[0]["scale"], "steps": len(zooms)}
    else:
        loop = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    picture = sample(prompt)
    side = 2 * SIDE + GAP
    target = Target(loop["center_x"], loop["center_y"])
    first = first_frame(picture.height, picture.width, loop["size"], loop["frame"], target)
    x, y, width, height = first.window
    sheet = picture.resize((side, side), Image.Resampling.LANCZOS, (x, y, x + width, y + height))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(30)
    left, top, unit = 0.0, 0.0, side / first.width
    plan = plan_steps(first.height, first.width, loop["scale"], loop["steps"], first.target)
    for i, step in enumerate(plan, 1):
        left, top = left + step.window.x * unit, top + step.window.y * unit
        shown = step.window.width * unit
        if shown < SMALLEST:
            break
        for colour, thickness, grown in (("black", 6, 2), ("white", 3, 0)):
            box = (left - grown, top - grown, left + shown + grown, top + shown + grown)
            pen.rectangle(box, outline=colour, width=thickness)
        if shown > LABELLED:
            place = (left + 8, top + (4 if i == 1 else shown + 6))
            label = f"{loop['scale'] ** i:g}x"
            pen.text(place, label, "white", font, stroke_width=3, stroke_fill="black")
        unit = shown / first.width
    return sheet


def before_and_after(prompt: Prompt) -> Image.Image:
    """The spot that a workflow looks at closely: left of a line the source, right of it the result."""
    with serve() as url:
        shown = run_prompt(url, prompt).outputs[find_node(prompt, "PreviewImage")]["images"]
        files = [urllib.request.urlopen(f"{url}/view?{urlencode(image)}").read() for image in shown]
    side = 2 * SIDE + GAP
    after, before = (
        Image.open(io.BytesIO(file)).resize((side, side), Image.Resampling.LANCZOS)
        for file in files
    )
    after.paste(before.crop((0, 0, side // 2, side)), (0, 0))
    line = (side - GAP) // 2, 0, (side + GAP) // 2 - 1, side
    ImageDraw.Draw(after).rectangle(line, fill="white")
    return after


def tiles(prompt: Prompt) -> Image.Image:
    """The middle of a workflow's picture, with the tiles of its passes."""
    full = prompt[find_node(prompt, "CoZFullImage")]["inputs"]
    picture = sample(prompt)
    shorter, side = min(picture.size), 2 * SIDE + GAP
    left, top = ((length - shorter) / 2 for length in picture.size)
    box = (left, top, left + shorter, top + shorter)
    sheet = picture.resize((side, side), Image.Resampling.LANCZOS, box)
    pen, unit = ImageDraw.Draw(sheet, "RGBA"), side / shorter
    for number in range(full["passes"], 0, -1):
        scale = full["scale"] ** number
        height, width = (round(length * scale) for length in reversed(picture.size))
        layout = tile_layout(height, width, full["tile"], full["overlap"])
        for x, y, w, h in layout.windows():
            corner = (x / scale - left) * unit, (y / scale - top) * unit
            shown = (*corner, corner[0] + w / scale * unit, corner[1] + h / scale * unit)
            if number == 1:
                pen.rectangle(shown, outline="black", width=6)
                pen.rectangle(
                    [*(v + 2 for v in shown[:2]), *(v - 2 for v in shown[2:])],
                    outline="white",
                    width=3,
                )
            else:
                pen.rectangle(shown, outline=(255, 255, 255, 90), width=1)
    return sheet


def picture_of(path: Path, demo: Path) -> Image.Image:
    if path == TEMPLATE:
        with Image.open(demo / "strip.png") as strip:
            return thumbnail(strip)
    prompt = read_prompt(path)
    kinds = {node["class_type"] for node in prompt.values()}
    if "CoZFullImage" not in kinds:
        return windows(prompt)
    return before_and_after(prompt) if "UpscaleModelLoader" in kinds else tiles(prompt)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo"
    for path in (ROOT / "workflows").glob("*.json"):
        sheet = picture_of(path, folder)
        sheet.save(path.with_suffix(".jpg"), quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
