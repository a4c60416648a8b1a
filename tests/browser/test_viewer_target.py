"""CoZ Zoom Viewer away from the chain: the way back, and a new chain from here."""

import json

import pytest
from playwright.sync_api import expect

from coz.geometry import Window

from .conftest import each_renderer
from .picker import LOOP, feed, target
from .viewer import DEEPEST, NODE, VIEW, fly, press, run_two_steps


def go_outside_chain(editor, viewer):
    """Zooms in at the lower left corner, where no window is."""
    box = viewer.locator("canvas").bounding_box()
    viewer.focus()
    editor.page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.8)
    for _ in range(9):
        editor.page.mouse.wheel(0, -100)
    expect(viewer.locator(".outside-chain")).to_be_visible()


@each_renderer
def test_where_nothing_was_zoomed_it_says_so_and_leads_back(editor, renderer):
    viewer = run_two_steps(editor, renderer, width=400)
    outside, label = viewer.locator(".outside-chain"), viewer.locator(".label")
    for scale in ("1x", "4x", "16x"):
        fly(viewer, scale)
        expect(outside).to_be_hidden()
    for scale, back in (("whole", "1x · first"), ("4x", DEEPEST)):
        fly(viewer, scale)
        go_outside_chain(editor, viewer)
        expect(outside).to_have_text("The chain did not zoom in here.Back to the chainZoom in here")
        viewer.locator(".back").click()
        expect(label).to_contain_text(back)
        expect(outside).to_be_hidden()
    fly(viewer, "whole")
    go_outside_chain(editor, viewer)
    viewer.locator(".here").click()
    expect(viewer.locator(".message")).to_contain_text("Run to zoom in there")
    x, y = target(editor)
    assert x < 0.3
    assert y > 0.7


def test_new_chain_here_aims_the_loop(editor):
    viewer = run_two_steps(editor, "classic")
    fly(viewer, "4x")
    press(viewer, "ArrowLeft")
    viewer.locator(".target").click()
    view = editor.run(VIEW)
    record = json.loads(editor.run(f"app.nodeOutputs[{NODE}.id].coz_chain[0]"))
    # From the deepest layer's pixels up to the source's, by the record's windows.
    x, y = view["x"], view["y"]
    for (width, height), window in zip(
        record["frames"][:0:-1], record["windows"][::-1], strict=True
    ):
        place = Window(*window)
        x, y = place.x + x * place.width / width, place.y + y * place.height / height
    width, height = record["frames"][0]
    aimed = target(editor)
    assert aimed == pytest.approx([x / width, y / height])
    expect(viewer.locator(".message")).to_contain_text("Run to zoom in there")
    feed(editor, "PrimitiveFloat", LOOP, "center_y")
    press(viewer, "ArrowLeft")
    viewer.locator(".target").click()
    expect(viewer.locator(".message")).to_contain_text("center_y of the Chain Loop is connected")
    assert target(editor) == aimed
