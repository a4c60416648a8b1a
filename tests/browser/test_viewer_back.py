"""CoZ Zoom Viewer finds its run again: in another visit of its tab, after a reload, or says why not."""

import json

import numpy as np
import requests
from playwright.sync_api import expect

from .viewer import difference, drawn, fly, sent, show

GONE = "These images are no longer on the server. Run again."


def test_it_comes_back_with_its_tab(editor, viewer):
    fly(viewer, "16x")
    pixels = drawn(viewer)
    editor.run("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    expect(viewer).to_have_count(0)
    editor.run("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    expect(viewer.locator(".label")).to_have_text("16x · step 2 of 4")
    assert np.array_equal(drawn(viewer), pixels)


def test_it_is_found_again_after_a_reload_and_asks_again_for_what_did_not_come(editor, viewer):
    show(editor, viewer, "vue")
    fly(viewer, "64x")
    pixels = drawn(viewer)
    line = viewer.get_by_role("slider")
    line.press("Shift+ArrowRight")
    deepest = json.loads(editor.run("window.output.coz_layers[0]"))[-1]["filename"]
    editor.page.route(f"**/view?*{deepest}*", lambda route: route.fulfill(status=502))
    output = editor.run("window.output")
    editor.reload()
    editor.run("output => { window.output = output }", output)
    message = viewer.locator(".message")
    expect(message).to_have_text("The images could not be shown: the server answered 502.")
    editor.page.unroute(f"**/view?*{deepest}*")
    expect(viewer.locator(".label")).to_have_text("64x · step 3 of 4")
    expect(line).to_have_attribute("aria-valuenow", "10")
    fly(viewer, "256x")
    expect(message).to_have_text("")
    assert difference(viewer, sent(editor, "coz_layers", -1)) < 6
    fly(viewer, "64x")
    line.press("Home")
    assert np.abs(drawn(viewer) - pixels).mean() < 1


# The last one: it throws the run's pictures away.
def test_it_says_run_again_when_the_pictures_are_gone(editor, viewer, folder):
    for file in (folder / "temp").glob("*.png"):
        file.unlink()
    fly(viewer, "16x")
    viewer.locator(".bad").click()
    message = viewer.locator(".message")
    expect(message).to_contain_text("Not marked: The images of this run")
    editor.reload()
    expect(message).to_have_text(GONE)
    requests.post(f"{editor.url}/history", json={"clear": True})  # as a restart of the server does
    editor.reload()
    expect(message).to_have_text(GONE)
