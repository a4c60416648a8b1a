"""CoZ Zoom Viewer compared with plain enlargement: the line to drag, and B."""

from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from .conftest import each_renderer
from .viewer import NODE, SHADOW, VIEW, drawn, fly, press, run_two_steps, to_array


def move_divider(editor, viewer, x):
    """Drags the line to that share of the width."""
    stage = viewer.locator(".stage").bounding_box()
    grip = viewer.locator(".divider .grip").bounding_box()
    left, top = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    line = stage["x"] + stage["width"] * place_of(viewer) / 100  # beside the grip at the edge
    editor.page.mouse.move(left, top)
    editor.page.mouse.down()
    editor.page.mouse.move(left + stage["x"] + stage["width"] * x - line, top + 5, steps=4)
    editor.page.mouse.up()


def place_of(viewer):
    """Of the line, in percent."""
    return int(viewer.locator(".divider").get_attribute("aria-valuenow"))


@each_renderer
def test_the_split_shows_plain_enlargement_on_its_left(editor, renderer):
    viewer = run_two_steps(editor, renderer)
    fly(viewer, "16x")
    zoomed = drawn(viewer)
    press(viewer, "b")
    viewer.page.wait_for_function(f"{SHADOW}.host.classList.contains('bicubic')")
    editor.settle()
    plain = drawn(viewer)
    press(viewer, "b")
    before = editor.run(VIEW)
    position = editor.run(f"[...{NODE}.pos]")
    assert place_of(viewer) == 0

    def check(percent):
        editor.settle()
        pixels = drawn(viewer)
        line = round(pixels.shape[1] * percent / 100)
        assert np.abs(pixels[:, : line - 4] - plain[:, : line - 4]).max() == 0
        assert np.abs(pixels[:, line + 4 :] - zoomed[:, line + 4 :]).max() == 0
        assert np.abs(pixels - plain).mean() > 1
        assert np.abs(pixels - zoomed).mean() > 1

    for place in (0.7, 0.3):  # from the edge of the view, and on
        move_divider(editor, viewer, place)
        assert place_of(viewer) == pytest.approx(100 * place, abs=1)
        check(place_of(viewer))
    with editor.page.expect_download() as download:  # of the view, whatever is compared in it
        viewer.locator(".save").click()
    assert np.array_equal(to_array(Path(download.value.path()).read_bytes()), zoomed)
    check(place_of(viewer))
    assert editor.run(VIEW) == before | {"split": pytest.approx(0.3, abs=0.01)}
    assert editor.run(f"[...{NODE}.pos]") == position
    move_divider(editor, viewer, -0.5)
    assert place_of(viewer) == 0
    viewer.locator("button.split").click()
    assert place_of(viewer) == 50
    check(50)
    viewer.locator("button.split").click()
    editor.settle()
    assert np.array_equal(drawn(viewer), zoomed)


def test_the_split_is_moved_with_keys(editor):
    viewer = run_two_steps(editor, "classic")
    fly(viewer, "4x")
    view = editor.run(VIEW)
    line = viewer.get_by_role("slider")
    line.focus()
    for key, percent in (
        ("ArrowRight", 2), ("Shift+ArrowRight", 12), ("ArrowLeft", 10), ("End", 100),
        ("ArrowRight", 100), ("Home", 0), ("ArrowLeft", 0), ("Shift+ArrowRight", 10),
    ):  # fmt: skip
        line.press(key)
        assert place_of(viewer) == percent
    expect(line).to_have_attribute("aria-valuetext", "10 % of the width is plain enlargement")
    assert editor.run(VIEW) == view | {"split": 0.1}


def test_b_switches_and_held_down_only_shows(editor):
    viewer = run_two_steps(editor, "classic")
    fly(viewer, "16x")
    pressed = viewer.locator("button.bicubic")
    for state in ("true", "false"):
        press(viewer, "b")
        expect(pressed).to_have_attribute("aria-pressed", state)
    start = editor.run("performance.now()")
    editor.page.keyboard.down("b")
    expect(pressed).to_have_attribute("aria-pressed", "true")
    editor.page.wait_for_function("start => performance.now() > start + 500", arg=start)
    for _ in range(3):  # as the system repeats a key that is held
        editor.page.keyboard.down("b")
    assert pressed.get_attribute("aria-pressed") == "true"
    editor.page.keyboard.up("b")
    expect(pressed).to_have_attribute("aria-pressed", "false")
    # It is let go when the focus goes, and the next one switches.
    editor.page.keyboard.down("b")
    expect(pressed).to_have_attribute("aria-pressed", "true")
    editor.run("document.activeElement.blur()")
    expect(pressed).to_have_attribute("aria-pressed", "false")
    editor.page.keyboard.up("b")
    press(viewer, "b")
    expect(pressed).to_have_attribute("aria-pressed", "true")
