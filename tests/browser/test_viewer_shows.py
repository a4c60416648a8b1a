"""What CoZ Zoom Viewer shows of a run: its frames, what is said of them, and how it fits its node."""

import json
from itertools import pairwise

import numpy as np
import pytest
from playwright.sync_api import expect

from coz.chain.real_pixels import COLOR_STOPS
from coz.fidelity.back_projection import describe_agreement

from .conftest import each_renderer
from .viewer import NODE, SHADOW, difference, drawn, fly, press, sent, show


@each_renderer
def test_every_scale_shows_its_own_frame_and_what_is_real_in_it(editor, viewer, renderer):
    """tests/js/caption.test.mjs has the words of all other views."""
    show(editor, viewer, renderer)
    record = json.loads(editor.run("window.output.coz_chain[0]"))
    real, rest, agreement = (viewer.locator(name) for name in (".real", ".rest", ".agreement"))
    for step, scale in enumerate(["1x", "4x", "16x", "64x", "256x"]):
        fly(viewer, scale)
        assert difference(viewer, sent(editor, "coz_layers", step + 1)) < 6, scale
        side = 256 // 4**step
        expect(real).to_have_text(
            f"{side} x {side} real pixel{'s' * (side > 1)}" if step else "all real"
        )
        color = "rgb({}, {}, {})".format(*COLOR_STOPS[step])
        expect(viewer.locator(".dot")).to_have_css("background-color", color)
        if step:
            source = "its input" if step == 1 else "its invented input"
            words = describe_agreement(record["agreements"][step - 1], source)
            expect(agreement).to_have_text(f"step {step} {words}")
        else:
            expect(agreement).to_be_hidden()
        assert "invented 1" not in viewer.locator(".facts").text_content()
    badge, label = (viewer.locator(name).bounding_box() for name in (".real", ".label"))
    assert badge["height"] > 1.3 * label["height"] * 12 / 16
    assert badge["y"] < label["y"]
    press(viewer, "b")
    expect(viewer.locator(".prompt")).to_contain_text("nothing is invented")
    expect(real).to_have_text("1 x 1 real pixel")
    expect(rest).to_have_text("this view is only enlarged: nothing is invented")
    expect(agreement).to_be_hidden()
    assert difference(viewer, sent(editor, "coz_bicubic", -1)) < 3
    press(viewer, "b")
    expect(agreement).to_be_visible()
    assert difference(viewer, sent(editor, "coz_layers", -1)) < 6


def test_a_new_run_keeps_the_view_and_a_list_shows_its_chains(editor, viewer):
    show(editor, viewer, "classic")
    fly(viewer, "16x")
    pixels = drawn(viewer)
    # A first layer of another name, as another run of the same sizes and place has it.
    editor.run(
        f"""() => {{
            const {{coz_layers, coz_bicubic, coz_chain}} = window.output
            const [, first, ...others] = JSON.parse(coz_layers[0])
            const again = JSON.stringify([first, first, ...others])
            {NODE}.onExecuted({{coz_layers: [again, again],
                coz_bicubic: [...coz_bicubic, ...coz_bicubic], coz_chain: [coz_chain[0],
                coz_chain[0].replace('rust & rivets', 'a second chain')]}})
        }}"""
    )
    expect(viewer.locator(".chain")).to_be_visible()
    expect(viewer.locator(".label")).to_have_text("16x · step 2 of 4")
    assert np.array_equal(drawn(viewer), pixels)
    viewer.locator(".chain").click()
    fly(viewer, "256x")
    expect(viewer.locator(".prompt")).to_have_text("a second chain")
    editor.run(f"{NODE}.onExecuted(window.output)")
    expect(viewer.locator(".chain")).to_be_hidden()


def test_the_browsers_zoom_keeps_it_sharp(editor, viewer):
    show(editor, viewer, "classic")
    fly(viewer, "4x")
    width = drawn(viewer).shape[1]
    is_wide = f"width => {SHADOW}.querySelector('canvas').width === width"
    metrics = {"width": 800, "height": 450, "deviceScaleFactor": 2, "mobile": False}
    editor.session.send("Emulation.setDeviceMetricsOverride", metrics)
    editor.page.wait_for_function(is_wide, arg=2 * width)
    editor.session.send("Emulation.clearDeviceMetricsOverride")
    editor.page.set_viewport_size({"width": 1600, "height": 900})
    editor.page.wait_for_function(is_wide, arg=width)


def test_full_screen(editor, viewer):
    show(editor, viewer, "classic")
    fly(viewer, "4x")
    press(viewer, "f")
    editor.page.wait_for_function("document.fullscreenElement")
    editor.page.wait_for_function(f"{SHADOW}.querySelector('canvas').width === innerWidth")
    press(viewer, "f")
    editor.page.wait_for_function("!document.fullscreenElement")


@each_renderer
@pytest.mark.parametrize("width", [300, 540, 900])
def test_it_fits_its_node(editor, viewer, renderer, width):
    show(editor, viewer, renderer, width)
    fly(viewer, "4x")
    box = viewer.bounding_box()
    for button in viewer.locator(".tools button:visible").all():
        place = button.bounding_box()
        assert box["x"] <= place["x"]
        assert place["x"] + place["width"] <= box["x"] + box["width"]
        assert place["y"] + place["height"] <= box["y"] + box["height"]
    names = [name.bounding_box() for name in viewer.locator(".factor:visible").all()]
    assert all(a["x"] + a["width"] <= b["x"] for a, b in pairwise(names))
