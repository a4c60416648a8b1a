"""What CoZ Zoom Viewer writes: marks, the view as a picture, the flight as a clip, diagnostics."""

import json
import re
from pathlib import Path

import av
import numpy as np
from playwright.sync_api import expect

from coz import __version__
from tools.host import DEFAULT_VERSION

from .conftest import each_renderer
from .viewer import FOUR_STEPS, HOSTILE, LOAD, NODE, SHADOW, drawn, fly, run_two_steps, to_array


def test_a_mark_is_written(editor, folder):
    viewer = run_two_steps(editor, "classic", step_prompts=f"a rocket\n{HOSTILE}")
    fly(viewer, "16x")
    viewer.locator(".good").click()
    expect(viewer.locator(".message")).to_have_text("Prompt of step 2 marked as good.")
    expect(viewer.locator(".good")).to_have_attribute("aria-pressed", "true")
    marks = folder / "output" / "chain-of-zoom"
    *_, line = (marks / "preferences.jsonl").read_text("utf-8").splitlines()
    entry = json.loads(line)
    assert (entry["prompt"], entry["step"], entry["good"]) == (HOSTILE, 2, True)
    # What step 2 saw: the frame before, and its window enlarged.
    before = json.loads(editor.run(f"app.nodeOutputs[{NODE}.id].coz_layers[0]"))[2]
    frame = folder / "temp" / before["subfolder"] / before["filename"]
    assert (marks / entry["previous"]).read_bytes() == frame.read_bytes()
    assert to_array((marks / entry["zoomed"]).read_bytes()).shape == (256, 256, 3)


def test_the_view_is_saved_as_it_is(editor):
    viewer = run_two_steps(editor, "classic")
    for scale, name in (("whole", "zoom-picture.png"), ("16x", "zoom-16x.png")):
        fly(viewer, scale)
        shown = drawn(viewer)
        with editor.page.expect_download() as download:
            viewer.locator(".save").click()
        assert download.value.suggested_filename == name
        assert np.array_equal(to_array(Path(download.value.path()).read_bytes()), shown)


@each_renderer
def test_the_flight_is_saved_as_a_clip(editor, renderer):
    viewer = run_two_steps(editor, renderer, width=400)
    clip = viewer.locator(".clip")
    title = clip.get_attribute("title")
    editor.run(
        f"""() => {{
            window.percents = []
            const percent = {SHADOW}.querySelector('.percent')
            new MutationObserver(() => percents.push(percent.textContent))
                .observe(percent, {{childList: true}})
        }}"""
    )
    with editor.page.expect_download() as download:
        clip.click()
        expect(clip).to_have_attribute("title", "Cancel the clip")
    assert download.value.suggested_filename == "zoom.mp4"
    with av.open(download.value.path()) as file:
        assert file.streams.video[0].width == 256
        assert sum(1 for _ in file.decode(video=0)) == round((2.5 * 1.5 + 1) * 30)
    expect(clip).to_have_attribute("title", title)
    first, *_, last = seen = editor.run("percents")
    assert (first, last) == ("0 %", "")
    assert all(re.fullmatch(r"\d+ %", text) for text in seen[:-1])


def test_a_clip_is_cancelled_and_refused(editor, folder):
    viewer = run_two_steps(editor, "classic")
    clip, message = viewer.locator(".clip"), viewer.locator(".message")
    clip.click()
    expect(clip).to_have_attribute("title", "Cancel the clip")
    clip.click()
    expect(message).to_have_text("The clip was cancelled.")
    expect(clip).to_have_attribute("aria-pressed", "false")
    layers = json.loads(editor.run(f"app.nodeOutputs[{NODE}.id].coz_layers[0]"))
    (record,) = folder.rglob(Path(layers[0]["filename"]).with_suffix(".json").name)
    record.unlink()
    clip.click()
    expect(message).to_have_text(
        "No clip was made: The images of this run are no longer in ComfyUI's temporary folder. "
        "Run again."
    )


PRIVATE = "my secret prompt"

COPY = f"""async () => {{
    const copied = new Promise(resolve => {{
        Object.defineProperty(navigator, 'clipboard', {{value: {{writeText: resolve}}}})
    }})
    const items = app.canvas.getNodeMenuOptions({NODE})
    items.find(item => item?.content === 'Copy diagnostics').callback()
    return await copied
}}"""


def test_diagnostics_hold_versions_and_nothing_private(editor, folder):
    editor.run(LOAD, [json.loads(FOUR_STEPS.read_text("utf-8")), PRIVATE])
    text = editor.run(COPY)
    found = json.loads(text)
    assert (found["pack"], found["comfyui"]) == (__version__, DEFAULT_VERSION)
    assert found["renderer"] == "classic"
    assert found["devices"][0]["vram_total"] > 0
    assert "--port" in found["options"]
    for private in (PRIVATE, str(folder), "/"):
        assert private not in json.dumps(found["options"])
    assert PRIVATE not in text
    assert str(folder) not in text
