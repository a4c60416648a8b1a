"""CoZ Zoom Viewer on the page: how it is run, moved and read."""

import base64
import io
import json
import re

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from tools.host.client import ServerClient

from .picker import FOUR_STEPS, build, chain, make, middle, node, run_it

VIEWER = ".coz-viewer"
SHOWN = make("CoZZoomViewer", chain=["loop", 3])
NODE = node("CoZZoomViewer")
SHADOW = f"document.querySelector('{VIEWER}').shadowRoot"
HOSTILE = "<img src=x onerror=window.hacked=1>"
PROMPTS = f"a rocket on its pad\n{HOSTILE}\n-\nrust & rivets"
WHOLE = "whole image"
DEEPEST = "16x · step 2 of 2"
"""Of ``run_two_steps``."""

VIEW = f"""async () => {{
    const {{loadView}} = await import('/extensions/chain-of-zoom/viewer/record.js')
    return loadView({NODE})
}}"""
# Alone in view.
LOAD = f"""async ([workflow, prompts]) => {{
    await app.loadGraphData(workflow)
    const {{widgets}} = {node("CoZChainLoop")}
    for (const [name, value] of [['step_prompts', prompts], ['size', 256]])
        widgets.find(widget => widget.name === name).value = value
    {NODE}.pos = [3000, 0]
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [-2700, 100]
    app.canvas.setDirty(true, true)
}}"""
# Scrolls the graph to the viewer, and keeps each label that it shows.
LOOK = f"""([isOnScreen, width, height]) => {{
    const node = {NODE}
    node.setSize([width, height])
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [(isOnScreen ? 300 : 3000) - node.pos[0], 120 - node.pos[1]]
    app.canvas.setDirty(true, true)
    window.labels = []
    const label = {SHADOW}.querySelector('.label')
    new MutationObserver(() => labels.push(label.textContent))
        .observe(label, {{childList: true, characterData: true, subtree: true}})
}}"""
# Whether it has all pictures that it would fetch by itself.
HAS_ALL = f"""async () => {{
    performance.clearResourceTimings()
    for (let i = 0; i < 20; i++) await new Promise(requestAnimationFrame)
    const come = performance.getEntriesByType('resource').some(({{name}}) => name.includes('/view?'))
    return !come && !{SHADOW}.host.classList.contains('empty')
}}"""


def run_four_steps(editor):
    """The viewer after a run of four steps of 4x with ``PROMPTS``; its output is ``window.output``."""
    editor.run(LOAD, [json.loads(FOUR_STEPS.read_text("utf-8")), PROMPTS])
    viewer = editor.page.locator(VIEWER)
    expect(viewer.locator(".message")).to_have_text("Run the workflow to see the zoom.")
    run_it(editor)
    editor.run(f"() => {{ window.output = app.nodeOutputs[{NODE}.id] }}")
    expect(viewer.locator(".label")).not_to_be_empty()
    return viewer


def show(editor, viewer, renderer, width=540, height=640):
    """The viewer in a renderer, its node of a size."""
    editor.use_renderer(renderer)
    resize = f"size => {{ {NODE}.setSize(size); app.canvas.setDirty(true, true) }}"
    editor.run(resize, [width, height])
    fits = f"width => Math.abs(document.querySelector('{VIEWER}').clientWidth - width) < 40"
    editor.page.wait_for_function(fits, arg=width)
    return viewer


def build_two_steps(
    editor, renderer, is_on_screen=True, width=540, height=640, others=None, **values
):
    """A viewer that has not run yet, after a loop with these values."""
    loop = {"picture": "astronaut.png", "size": 256, "scale": 4, "steps": 2}
    place = {"center_x": 0.481, "center_y": 0.203}
    nodes = chain(**loop, **place, **values) | {"viewer": SHOWN}
    build(editor, renderer, nodes | (others or {}))
    viewer = editor.page.locator(VIEWER).first
    expect(viewer).to_have_count(1)
    editor.run(LOOK, [is_on_screen, width, height])
    return viewer


def run_two_steps(editor, renderer, **how):
    """A viewer that has run, and shows the whole picture at rest."""
    editor.page.emulate_media(reduced_motion="reduce")
    viewer = build_two_steps(editor, renderer, **how)
    run_it(editor)
    expect(viewer.locator(".label").first).to_have_text(WHOLE)
    editor.settle()
    return viewer


def press(viewer, *keys):
    viewer.focus()
    for key in keys:
        viewer.press(key)


def fly(viewer, scale):
    viewer.get_by_role("button", name=f"Fly to {scale}", exact=True).click()
    label = WHOLE if scale == "whole" else re.compile(rf"^{scale} ")
    expect(viewer.locator(".label")).to_have_text(label)


def is_playing(viewer):
    return viewer.locator(".play").get_attribute("aria-pressed") == "true"


def middle_of(viewer):
    return middle(viewer.locator("canvas").bounding_box())


def drawn(viewer):
    """What the canvas shows once all pictures are there, as floats."""
    viewer.page.wait_for_function(HAS_ALL)
    address = viewer.locator("canvas").evaluate("canvas => canvas.toDataURL()")
    return to_array(base64.b64decode(address.partition(",")[2]))


def to_array(content, side=None):
    with Image.open(io.BytesIO(content)) as image:
        image = image.convert("RGB")
        return np.asarray(image.resize((side, side), Image.BICUBIC) if side else image, dtype=float)


def sent(editor, name, index):
    """A picture that the node sent, from the server."""
    file = editor.run(f"JSON.parse(window.output.{name}[0]).at({index})")
    return ServerClient(editor.url).download(file)


def difference(viewer, content):
    """Between the canvas and a layer's picture, all of which is in view; without its soft edges."""
    pixels = drawn(viewer)
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square, cut = pixels[top : top + side, left : left + side], side // 16
    return np.abs(square - to_array(content, side))[cut:-cut, cut:-cut].mean()
