"""Make the templates' thumbnails: python -m tools.thumbnail [DIR]

The first template shows what ``make demo`` wrote into DIR (default: demo/). The others need weights
that are not here: they show their picture, and where its workflow zooms.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from coz.geometry import Target, first_frame, plan_steps

from .host import ROOT
from .workflow import TEMPLATE, find_node, read_prompt

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


def windows(path: Path) -> Image.Image:
    """The first frame of a workflow, with the windows of its steps."""
    prompt = read_prompt(path)
    zooms = [n["inputs"] for n in prompt.values() if n["class_type"] == "CoZCropCenterZoom"]
    if zooms:  # wired by hand
        loop = prompt[find_node(prompt, "CoZFitImage")]["inputs"]
        loop |= {"scale": zooms[0]["scale"], "steps": len(zooms)}
    else:
        loop = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    name = prompt[find_node(prompt, "CoZSamplePicture")]["inputs"]["picture"]
    picture = Image.open(ROOT / "pictures" / name).convert("RGB")
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


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo"
    for path in (ROOT / "workflows").glob("*.json"):
        if path == TEMPLATE:
            with Image.open(folder / "strip.png") as strip:
                sheet = thumbnail(strip)
        else:
            sheet = windows(path)
        sheet.save(path.with_suffix(".jpg"), quality=QUALITY, optimize=True)


if __name__ == "__main__":
    main()
