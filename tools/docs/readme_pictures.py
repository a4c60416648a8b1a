"""Make the images at the top of the README: python -m tools.docs.readme_pictures

It runs the first template in a real ComfyUI. assets/zoom.webp is the resulting zoom. assets/editor.jpg
is a screenshot of the page afterwards: the target picker, and the viewer at the deepest frame.
assets/strips.jpg shows three chains with the built-in models; the last ends in a blur, to show their limit.
"""

import io
import re
import tempfile
from pathlib import Path

import torch
from PIL import Image
from playwright.sync_api import Page, expect

from coz import plan_zoom
from coz.chain.folder import read_chain
from coz.geometry import Target
from coz.render.pillow import from_pillow, to_pillow
from coz.render.strip import draw_strip
from tools.demo import make_demo, write_zoom
from tools.host import ROOT
from tools.host.frontend import open_page
from tools.host.server import serve
from tools.host.workflow import FIRST_TEMPLATE
from tools.train_lite.scoring import load_model, zoom_with

from .help_pictures import RUN_GRAPH_JS

FOLDER = ROOT / "assets"
VIDEO_HEIGHT, VIDEO_WIDTH = 426, 640
FRAMES_PER_STEP = 40
EDITOR_WIDTH = 1600
STRIP_STEPS, STRIP_WIDTH = 3, 1200
STRIPS = (
    ("chelsea.png", Target(0.345, 0.36), "coz_lite_x4.safetensors"),
    ("astronaut.png", Target(0.335, 0.75), "coz_lite_x4_texture.safetensors"),
    ("astronaut.png", Target(0.482, 0.197), "coz_lite_x4.safetensors"),
)
"""Photograph, target and model of each chain."""
JPEG_QUALITY = 86

OPEN_WORKFLOW_JS = """async workflow => {
    await app.loadGraphData(JSON.parse(workflow), true, true, null, {openSource: 'template'})
    app.canvas.setDirty(true, true)
}"""
# Returns the part of the page from the first node's title to the viewer's lower edge, with a margin.
FIND_AREA_JS = """() => {
    const {scale, offset} = app.canvas.ds, margin = 20
    const {left, top} = app.canvas.canvas.getBoundingClientRect()
    const nodes = app.graph.nodes
    const right = Math.max(...nodes.map(({pos, size}) => pos[0] + size[0]))
    const x = left + (Math.min(...nodes.map(({pos}) => pos[0])) - margin + offset[0]) * scale
    const y = top + (Math.min(...nodes.map(({pos}) => pos[1])) - 50 - margin + offset[1]) * scale
    const viewer = nodes.find(({type}) => type === 'CoZZoomViewer')
    const bottom = top + (viewer.pos[1] + viewer.size[1] + offset[1]) * scale
    return {x, y, width: left + (right + margin + offset[0]) * scale - x, height: bottom - y + 10}
}"""


def take_editor_screenshot(page: Page) -> Image.Image:
    """Run the first template and take a screenshot with its viewer at the deepest frame."""
    page.evaluate(OPEN_WORKFLOW_JS, FIRST_TEMPLATE.read_text("utf-8"))
    page.wait_for_timeout(1500)  # until the picker shows its image
    end, message = page.evaluate(RUN_GRAPH_JS)
    if end != "execution_success":
        raise SystemExit(f"error: {message}")
    expect(page.locator(".coz-viewer .label")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Fly to")).last.click()
    page.evaluate("""() => {
        app.canvas.deselectAll()
        return app.extensionManager.command.execute('Comfy.Canvas.FitView')
    }""")
    page.wait_for_timeout(3000)  # until the flight has ended and messages have disappeared
    return Image.open(io.BytesIO(page.screenshot(clip=page.evaluate(FIND_AREA_JS)))).convert("RGB")


@torch.inference_mode()
def draw_strips() -> Image.Image:
    rows = []
    for name, target, model in STRIPS:
        image = from_pillow(Image.open(ROOT / "pictures" / name).convert("RGB"))
        plan = plan_zoom(*image.shape[-2:], STRIP_STEPS, target=target)
        chain = zoom_with(load_model(ROOT / "models" / model), image, plan)
        row = to_pillow(draw_strip(chain))
        height = round(row.height * STRIP_WIDTH / row.width)
        rows.append(row.resize((STRIP_WIDTH, height), Image.Resampling.LANCZOS))
    sheet = Image.new("RGB", (STRIP_WIDTH, sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def main() -> None:
    draw_strips().save(FOLDER / "strips.jpg", quality=JPEG_QUALITY, optimize=True)
    with tempfile.TemporaryDirectory() as folder:
        make_demo(None, None, None, Path(folder))
        video = FOLDER / "zoom.webp"
        write_zoom(read_chain(Path(folder)), video, VIDEO_HEIGHT, VIDEO_WIDTH, FRAMES_PER_STEP)
    with serve() as url, open_page(url, 2600, 1900) as page:
        picture = take_editor_screenshot(page)
    size = EDITOR_WIDTH, round(picture.height * EDITOR_WIDTH / picture.width)
    picture.resize(size, Image.Resampling.LANCZOS).save(
        FOLDER / "editor.jpg", quality=JPEG_QUALITY, optimize=True
    )


if __name__ == "__main__":
    main()
