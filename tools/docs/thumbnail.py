"""Make the templates' thumbnails: python -m tools.docs.thumbnail [DIR]

The thumbnail of the first template shows what ``make demo`` wrote to DIR (default: demo/). The template
"Whole picture 4x" is run, and its thumbnail shows the result. The others need downloaded weights, so their
thumbnails show the template's image and the windows of its steps.
"""

import io
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from coz.chain.folder import read_chain
from coz.geometry import Target, place_first_frame, plan_steps
from coz.render.pillow import to_pillow
from tools.host import ROOT
from tools.host.client import ServerClient, run_prompt
from tools.host.server import serve
from tools.host.workflow import FIRST_TEMPLATE, Prompt, find_node, read_prompt
from tools.image_file import open_image

GAP_PIXELS = 8
SIDE_PIXELS = 808
"""Side of a thumbnail. The template browser shows it at 230 to 350 pixels."""
INSET_SIDE_PIXELS = 300
COMPARED_BOX = (0.3125, 0.07, 0.5625, 0.32)
"""Left, top, right and bottom of a face, as fractions of the image."""
JPEG_QUALITY = 86
MIN_WINDOW_SIDE_PIXELS = 12
"""Side of the smallest window that can still be seen."""
MIN_LABELED_SIDE_PIXELS = 40
"""Side of the smallest window that gets a label."""


def show_deepest_frame(demo: Path) -> Image.Image:
    """Show the deepest frame of a saved chain, and the whole image in its corner."""
    chain = read_chain(demo)
    source, deepest = to_pillow(chain.frames[0]), to_pillow(chain.frames[-1])
    sheet = ImageOps.fit(deepest, (SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS)
    small = ImageOps.contain(
        source, (INSET_SIDE_PIXELS, INSET_SIDE_PIXELS), Image.Resampling.LANCZOS
    )
    framed = ImageOps.expand(small, GAP_PIXELS, "white")
    sheet.paste(framed, (SIDE_PIXELS - framed.width, SIDE_PIXELS - framed.height))
    return sheet


def open_sample(prompt: Prompt) -> Image.Image:
    name = prompt[find_node(prompt, "CoZSamplePicture")]["inputs"]["picture"]
    return open_image(ROOT / "pictures" / name)


def draw_windows(prompt: Prompt) -> Image.Image:
    """Draw the windows of a workflow's steps on its first frame."""
    loop = prompt[find_node(prompt, "CoZChainLoop")]["inputs"]
    picture = open_sample(prompt)
    target = Target(loop["center_x"], loop["center_y"])
    first = place_first_frame(picture.height, picture.width, loop["size"], loop["frame"], target)
    x, y, width, height = first.window
    sheet = picture.resize(
        (SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS, (x, y, x + width, y + height)
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(30)
    left, top, unit = 0.0, 0.0, SIDE_PIXELS / first.width
    plan = plan_steps(first.height, first.width, loop["scale"], loop["steps"], first.target)
    for i, step in enumerate(plan, 1):
        left, top = left + step.window.x * unit, top + step.window.y * unit
        length = step.window.width * unit
        if length < MIN_WINDOW_SIDE_PIXELS:
            break
        for color, thickness, grown in (("black", 6, 2), ("white", 3, 0)):
            box = (left - grown, top - grown, left + length + grown, top + length + grown)
            pen.rectangle(box, outline=color, width=thickness)
        if length > MIN_LABELED_SIDE_PIXELS:
            place = (left + 8, top + (4 if i == 1 else length + 6))
            label = f"{loop['scale'] ** i:g}x"
            pen.text(place, label, "white", font, stroke_width=3, stroke_fill="black")
        unit = length / first.width
    return sheet


def show_before_and_after(prompt: Prompt) -> Image.Image:
    """Run the workflow and show a part of it: the source on the left, the result on the right."""
    with serve() as url:
        (file,) = run_prompt(url, prompt).outputs[find_node(prompt, "SaveImage")]["images"]
        result = Image.open(io.BytesIO(ServerClient(url).download(file)))

    def cut(picture: Image.Image) -> Image.Image:
        box = [share * length for share, length in zip(COMPARED_BOX, 2 * picture.size, strict=True)]
        return picture.resize((SIDE_PIXELS, SIDE_PIXELS), Image.Resampling.LANCZOS, box)

    after, before = cut(result), cut(open_sample(prompt))
    after.paste(before.crop((0, 0, SIDE_PIXELS // 2, SIDE_PIXELS)), (0, 0))
    line = (SIDE_PIXELS - GAP_PIXELS) // 2, 0, (SIDE_PIXELS + GAP_PIXELS) // 2 - 1, SIDE_PIXELS
    ImageDraw.Draw(after).rectangle(line, fill="white")
    return after


def make_thumbnail(path: Path, demo: Path) -> Image.Image:
    if path == FIRST_TEMPLATE:
        return show_deepest_frame(demo)
    prompt = read_prompt(path)
    kinds = {node["class_type"] for node in prompt.values()}
    return show_before_and_after(prompt) if "CoZFullImage" in kinds else draw_windows(prompt)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "demo"
    for path in (ROOT / "workflows").glob("*.json"):
        sheet = make_thumbnail(path, folder)
        sheet.save(path.with_suffix(".jpg"), quality=JPEG_QUALITY, optimize=True)


if __name__ == "__main__":
    main()
