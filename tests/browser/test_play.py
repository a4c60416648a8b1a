"""CoZ Zoom Viewer in the real frontend: play, the split, the way back and the clip."""

import json
import re
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import expect

from .picker import build, chain, run_it
from .test_viewer import drawn, fly, press, to_array

RENDERERS = pytest.mark.parametrize("renderer", ["classic", "vue"])
VIEWER = ".coz-viewer"
SHOWN = {"type": "CoZZoomViewer", "links": {"chain": ["loop", 3]}}
SCALES = ["first frame", "step 1 of 2", "step 2 of 2"]
WHOLE = "whole image"
DEEPEST = "16x · step 2 of 2"

NODE = "app.graph.nodes.find(({type}) => type === 'CoZZoomViewer')"
SHADOW = f"document.querySelector('{VIEWER}').shadowRoot"
# Scrolls the graph to the viewer. Keeps each label that it shows, and counts what arrives.
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
# What begins in the frame after a picture came has begun.
SETTLE = """async () => {
    for (let i = 0; i < 10; i++) await new Promise(requestAnimationFrame)
}"""
VIEW = f"""async () => {{
    const {{loadView}} = await import('/extensions/chain-of-zoom/viewer/record.js')
    return loadView({NODE})
}}"""
AIM = """([x, y]) => {
    const loop = app.graph.nodes.find(({type}) => type === 'CoZChainLoop')
    for (const [name, value] of [['center_x', x], ['center_y', y]])
        loop.widgets.find(widget => widget.name === name).value = value
}"""


@pytest.fixture(autouse=True)
def motion(editor):
    editor.page.emulate_media(reduced_motion="no-preference")
    yield
    editor.page.emulate_media(reduced_motion="reduce")


@pytest.fixture
def show(editor):
    """A viewer that has not run yet."""

    def show(renderer, is_on_screen=True, width=540, height=640, **nodes):
        loop = {"picture": "astronaut.png", "size": 256, "scale": 4, "steps": 2}
        place = {"center_x": 0.481, "center_y": 0.203}
        build(editor, renderer, chain(**loop, **place) | {"viewer": SHOWN} | nodes)
        viewer = editor.page.locator(VIEWER).first
        expect(viewer).to_have_count(1)
        editor.run(LOOK, [is_on_screen, width, height])
        return viewer

    return show


@pytest.fixture
def shown(editor, show):
    """A viewer that has run, and shows the whole picture at rest."""

    def shown(renderer, **how):
        editor.page.emulate_media(reduced_motion="reduce")
        viewer = show(renderer, **how)
        run_it(editor)
        expect(viewer.locator(".label").first).to_have_text(WHOLE)
        editor.run(SETTLE)
        editor.page.emulate_media(reduced_motion="no-preference")
        return viewer

    return shown


def is_playing(viewer):
    return viewer.locator(".play").get_attribute("aria-pressed") == "true"


def wait_for_label(editor, label):
    editor.page.wait_for_function("label => window.labels.includes(label)", arg=label)


def scales_seen(editor):
    """The scales that were shown one after another."""
    names = [text.partition(" · ")[2] for text in editor.run("window.labels")]
    return [name for i, name in enumerate(names) if name and (not i or names[i - 1] != name)]


@RENDERERS
def test_each_run_of_another_chain_flies_in_once(editor, show, renderer):
    viewer = show(renderer)
    run_it(editor)
    wait_for_label(editor, DEEPEST)
    expect(viewer.locator(".play")).to_have_attribute("aria-pressed", "false")
    assert scales_seen(editor) == SCALES
    editor.run("() => { window.labels.length = 0 }")
    editor.run(AIM, [0.6, 0.7])
    run_it(editor)
    wait_for_label(editor, DEEPEST)
    expect(viewer.locator(".play")).to_have_attribute("aria-pressed", "false")
    assert scales_seen(editor) == SCALES
    editor.run("() => { window.labels.length = 0 }")
    run_it(editor)  # of the same windows: what is looked at stays
    editor.run(SETTLE)
    assert not is_playing(viewer)
    assert editor.run("window.labels") == []


@RENDERERS
@pytest.mark.parametrize("reason", ["off screen", "reduced motion", "hidden tab"])
def test_nothing_flies_by_itself(editor, show, renderer, reason):
    """Where nobody sees it or wants it."""
    if reason == "reduced motion":
        editor.page.emulate_media(reduced_motion="reduce")
    viewer = show(renderer, is_on_screen=reason != "off screen")
    hidden = (
        "hidden => Object.defineProperty(document, 'hidden', {value: hidden, configurable: true})"
    )
    editor.run(hidden, reason == "hidden tab")
    run_it(editor)
    editor.page.wait_for_function(f"!{SHADOW}.host.classList.contains('empty')")
    editor.run(SETTLE)
    if reason == "off screen":  # and does not make up for it later
        editor.run(LOOK, [True, 540, 640])
    expect(viewer.locator(".label")).to_have_text(WHOLE)
    editor.run(SETTLE)
    assert not is_playing(viewer)
    editor.run("() => delete document.hidden")


@RENDERERS
def test_space_plays_again_and_again_and_stops(editor, shown, renderer):
    viewer = shown(renderer)
    label = viewer.locator(".label")
    viewer.focus()
    viewer.press(" ")
    expect(viewer.locator(".play")).to_have_attribute("aria-pressed", "true")
    expect(label).to_contain_text("step 1 of 2")
    editor.screenshot(f"play-{renderer}")
    editor.page.wait_for_function(
        f"labels.includes('{DEEPEST}') && labels.lastIndexOf('{WHOLE}') > labels.indexOf('{DEEPEST}')"
    )
    assert scales_seen(editor)[:3] == SCALES
    expect(label).to_contain_text("step 1 of 2")
    viewer.press(" ")
    expect(viewer.locator(".play")).to_have_attribute("aria-pressed", "false")
    stopped = label.text_content()
    kept = editor.run(VIEW)
    editor.run(SETTLE)
    assert label.text_content() == stopped
    assert kept == editor.run(VIEW)
    assert editor.run("app.canvas.read_only") is False  # Space is the graph's key for panning


# How often the viewer has painted a picture since.
COUNT = f"""() => {{
    window.painted = 0
    const {{prototype}} = CanvasRenderingContext2D, {{drawImage}} = prototype
    const canvas = {SHADOW}.querySelector('canvas')
    prototype.drawImage = function (...args) {{
        if (this.canvas === canvas) painted++
        return drawImage.apply(this, args)
    }}
    window.stopCounting = () => {{ prototype.drawImage = drawImage }}
}}"""


@RENDERERS
def test_a_flight_rests_while_nobody_sees_it(editor, shown, renderer):
    viewer = shown(renderer)
    viewer.locator(".play").click()
    expect(viewer.locator(".label")).to_contain_text("step 1 of 2")
    editor.run(LOOK, [False, 540, 640])
    editor.run(COUNT)
    # Once it has rested for a second: the page notices a moment later that nobody sees it.
    editor.page.wait_for_function(
        """() => {
            if (painted) window.rests = performance.now()
            window.painted = 0
            return performance.now() - (window.rests ??= performance.now()) > 1000
        }"""
    )
    editor.run(LOOK, [True, 540, 640])
    wait_for_label(editor, DEEPEST)
    assert is_playing(viewer)
    assert editor.run("painted") > 0
    editor.run("stopCounting()")


@RENDERERS
def test_the_wheel_and_a_flight_to_a_scale_end_the_play(editor, shown, renderer):
    viewer = shown(renderer)
    play = viewer.locator(".play")
    box = viewer.locator("canvas").bounding_box()
    for stop in ("wheel", "scale"):
        play.click()
        expect(play).to_have_attribute("aria-pressed", "true")
        if stop == "wheel":
            editor.page.mouse.move(box["x"] + 200, box["y"] + 150)
            editor.page.mouse.wheel(0, -40)
        else:
            viewer.get_by_role("button", name="Fly to 1x", exact=True).click()
        expect(play).to_have_attribute("aria-pressed", "false")


def test_space_presses_the_button_that_the_keyboard_is_on(editor, shown):
    viewer = shown("classic")
    viewer.locator(".divider.parked").wait_for()
    viewer.locator("button.split").focus()
    editor.page.keyboard.press(" ")
    expect(viewer.locator("button.split")).to_have_attribute("aria-pressed", "true")
    assert not is_playing(viewer)
    viewer.locator("button.split").click()  # the pointer leaves the focus to the viewer
    editor.page.keyboard.press(" ")
    expect(viewer.locator(".play")).to_have_attribute("aria-pressed", "true")
    expect(viewer.locator("button.split")).to_have_attribute("aria-pressed", "false")


def test_with_reduced_motion_play_shows_one_frame_after_another(editor, shown):
    viewer = shown("classic")
    editor.page.emulate_media(reduced_motion="reduce")
    viewer.locator(".play").click()
    editor.page.wait_for_function(f"labels.includes('{DEEPEST}')")
    viewer.locator(".play").click()
    labels = editor.run("window.labels")
    assert set(labels) <= {WHOLE, "1x · first frame", "4x · step 1 of 2", DEEPEST}


@RENDERERS
def test_play_goes_on_when_a_run_replaces_the_chain(editor, shown, renderer):
    viewer = shown(renderer)
    viewer.locator(".play").click()
    expect(viewer.locator(".label")).to_contain_text("step 1 of 2")
    editor.run(AIM, [0.7, 0.8])
    editor.run(
        """() => { app.graph.nodes.find(({type}) => type === 'CoZChainLoop')
            .widgets.find(({name}) => name === 'steps').value = 3 }"""
    )
    run_it(editor)
    wait_for_label(editor, "64x · step 3 of 3")
    assert is_playing(viewer)
    # A chain through which there is no way ends it.
    editor.run(ONE_FRAME)
    expect(viewer.locator(".label")).to_have_text("1x · first frame")
    expect(viewer.locator(".play")).to_have_attribute("aria-pressed", "false")


ONE_FRAME = f"""() => {{
    const {{coz_layers, coz_chain}} = app.nodeOutputs[{NODE}.id]
    const [, first] = JSON.parse(coz_layers[0])
    const frames = Array(2).fill(JSON.parse(coz_chain[0]).frames[1])
    const record = {{...JSON.parse(coz_chain[0]), frames, steps: 0, prompts: [], seeds: [],
        windows: [[0, 0, ...frames[0]]], agreements: [], invented: [], real_pixels: []}}
    {NODE}.onExecuted({{coz_layers: [JSON.stringify([first, first])], coz_bicubic: ["[]"],
        coz_chain: [JSON.stringify(record)]}})
}}"""


def test_a_chain_of_one_frame_says_that_there_is_no_way(editor, shown):
    viewer = shown("classic")
    editor.run(ONE_FRAME)
    expect(viewer.locator(".prompt")).to_have_text("The first frame. What lies deeper is invented.")
    for name in (".play", ".clip"):
        viewer.locator(name).click()
        expect(viewer.locator(".message")).to_have_text(
            "This chain has only one frame: there is nothing to play."
        )
        expect(viewer.locator(name)).not_to_have_attribute("aria-pressed", "true")


def test_a_removed_viewer_does_not_fly(editor, shown):
    shown("classic")
    editor.run(
        f"""() => {{
            const play = window.play = {SHADOW}.querySelector('.play')
            app.graph.remove({NODE})
            play.click()
        }}"""
    )
    editor.run(SETTLE)
    assert editor.run("play.ariaPressed") == "false"


@RENDERERS
def test_two_viewers_play_at_once(editor, shown, renderer):
    shown(renderer, width=400, height=480, other=SHOWN)
    viewers = editor.page.locator(VIEWER)
    expect(viewers).to_have_count(2)
    for i in range(2):
        viewers.nth(i).locator(".play").click()
    deepest = (
        "i => document.querySelectorAll('.coz-viewer')[i].shadowRoot.querySelector('.label')"
        f".textContent === '{DEEPEST}'"
    )
    for i in range(2):
        editor.page.wait_for_function(deepest, arg=i, polling="raf")
        assert is_playing(viewers.nth(i))
    editor.screenshot(f"play-two-{renderer}")
    viewers.nth(0).locator(".play").click()
    expect(viewers.nth(0).locator(".play")).to_have_attribute("aria-pressed", "false")
    assert is_playing(viewers.nth(1))


def move_divider(editor, viewer, x):
    """Drags the line to that share of the width."""
    stage = viewer.locator(".stage").bounding_box()
    grip = viewer.locator(".divider .grip").bounding_box()
    left, top = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    line = stage["x"] + stage["width"] * place_of(viewer) / 100  # beside the grip at the edge
    editor.page.mouse.move(left, top)
    editor.page.mouse.down()
    end = left + stage["x"] + stage["width"] * x - line
    editor.page.mouse.move(end, top + 5, steps=4)
    editor.page.mouse.up()


def place_of(viewer):
    """Of the line, in percent."""
    return int(viewer.locator(".divider").get_attribute("aria-valuenow"))


@RENDERERS
def test_the_split_shows_plain_enlargement_on_its_left(editor, shown, renderer):
    viewer = shown(renderer)
    editor.page.emulate_media(reduced_motion="reduce")
    fly(viewer, "16x")
    zoomed = drawn(viewer)
    press(viewer, "b")
    viewer.page.wait_for_function(f"{SHADOW}.host.classList.contains('bicubic')")
    editor.run(SETTLE)
    plain = drawn(viewer)
    press(viewer, "b")
    before = editor.run(VIEW)
    position = editor.run(f"[...{NODE}.pos]")
    assert place_of(viewer) == 0

    def check(percent):
        editor.run(SETTLE)
        pixels = drawn(viewer)
        line = round(pixels.shape[1] * percent / 100)
        assert np.abs(pixels[:, : line - 4] - plain[:, : line - 4]).max() == 0
        assert np.abs(pixels[:, line + 4 :] - zoomed[:, line + 4 :]).max() == 0
        assert np.abs(pixels - plain).mean() > 1
        assert np.abs(pixels - zoomed).mean() > 1

    move_divider(editor, viewer, 0.7)  # from the edge of the view
    assert place_of(viewer) == pytest.approx(70, abs=1)
    check(place_of(viewer))
    editor.screenshot(f"split-{renderer}")
    move_divider(editor, viewer, 0.3)
    assert place_of(viewer) == pytest.approx(30, abs=1)
    check(place_of(viewer))
    with editor.page.expect_download() as download:  # of the view, whatever is compared in it
        viewer.locator(".save").click()
    assert np.array_equal(to_array(Path(download.value.path()).read_bytes()), zoomed)
    check(place_of(viewer))
    after = editor.run(VIEW)
    assert {key: after[key] for key in ("x", "y", "span")} == {
        key: before[key] for key in ("x", "y", "span")
    }
    assert after["split"] == pytest.approx(0.3, abs=0.01)
    assert editor.run(f"[...{NODE}.pos]") == position
    move_divider(editor, viewer, -0.5)
    assert place_of(viewer) == 0
    viewer.locator("button.split").click()
    assert place_of(viewer) == 50
    check(50)
    viewer.locator("button.split").click()
    editor.run(SETTLE)
    assert np.array_equal(drawn(viewer), zoomed)


def test_the_split_is_moved_with_keys_and_kept(editor, shown):
    viewer = shown("classic")
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
    words = "10 % of the width is plain enlargement"
    expect(line).to_have_attribute("aria-valuetext", words)
    kept = editor.run(VIEW)
    assert kept == view | {"split": 0.1}
    editor.page.wait_for_timeout(1500)  # the frontend saves its draft a moment later
    editor.reload()
    expect(viewer.locator(".divider")).to_have_attribute("aria-valuenow", "10")


def test_b_switches_and_held_down_only_shows(editor, shown):
    viewer = shown("classic")
    fly(viewer, "16x")
    pressed = viewer.locator(".bicubic")
    viewer.focus()
    for state in ("true", "false"):
        viewer.press("b")
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


def test_b_is_let_go_when_the_focus_goes(editor, shown):
    viewer = shown("classic")
    fly(viewer, "16x")
    pressed = viewer.locator(".bicubic")
    viewer.focus()
    editor.page.keyboard.down("b")
    expect(pressed).to_have_attribute("aria-pressed", "true")
    editor.run("document.activeElement.blur()")
    expect(pressed).to_have_attribute("aria-pressed", "false")
    editor.page.keyboard.up("b")
    viewer.press("b")  # and the next one switches
    expect(pressed).to_have_attribute("aria-pressed", "true")


def go_astray(editor, viewer):
    """Zooms in at the lower left corner, where no window is."""
    box = viewer.locator("canvas").bounding_box()
    viewer.focus()
    editor.page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.8)
    for _ in range(9):
        editor.page.mouse.wheel(0, -100)
    expect(viewer.locator(".astray")).to_be_visible()


@RENDERERS
def test_where_nothing_was_zoomed_it_says_so_and_leads_back(editor, shown, renderer):
    viewer = shown(renderer, width=400)
    astray = viewer.locator(".astray")
    expect(astray).to_be_hidden()
    for scale in ("1x", "4x", "16x"):
        editor.page.emulate_media(reduced_motion="reduce")
        fly(viewer, scale)
        expect(astray).to_be_hidden()
    editor.page.emulate_media(reduced_motion="no-preference")
    for scale, frame in (("whole", "1x"), ("1x", "4x"), ("4x", "16x")):
        fly_slowly(viewer, scale)
        go_astray(editor, viewer)
        expect(astray).to_have_text("The chain did not zoom in here.Back to the chainZoom in here")
        if scale == "whole":
            editor.screenshot(f"astray-{renderer}")
        viewer.locator(".back").click()
        wait_for_scale(viewer, frame)
        expect(astray).to_be_hidden()
    fly_slowly(viewer, "whole")
    go_astray(editor, viewer)
    viewer.locator(".here").click()
    expect(viewer.locator(".message")).to_contain_text("Run to zoom in there")
    x, y = (
        editor.run(
            """name => app.graph.nodes.find(({type}) => type === 'CoZChainLoop')
                .widgets.find(widget => widget.name === name).value""",
            name,
        )
        for name in ("center_x", "center_y")
    )
    assert x < 0.3
    assert y > 0.7


def fly_slowly(viewer, scale):
    viewer.get_by_role("button", name=f"Fly to {scale}", exact=True).click()
    wait_for_scale(viewer, scale)


def wait_for_scale(viewer, scale):
    label = WHOLE if scale == "whole" else re.compile(f"^{scale} ")
    expect(viewer.locator(".label")).to_have_text(label)


@RENDERERS
@pytest.mark.parametrize("width", [400, 540])
def test_the_buttons_have_one_row(editor, shown, renderer, width):
    viewer = shown(renderer, width=width)
    viewer.locator("button.split").click()
    fly(viewer, "4x")
    boxes = [button.bounding_box() for button in viewer.locator(".tools button:visible").all()]
    assert len(boxes) == 10
    assert len({box["y"] for box in boxes}) == 1
    assert min(box["width"] for box in boxes) >= 26
    editor.screenshot(f"tools-{width}-{renderer}")


@RENDERERS
def test_the_flight_is_saved_as_a_clip(editor, shown, renderer):
    viewer = shown(renderer, width=400)
    clip = viewer.locator(".clip")
    title = clip.get_attribute("title")
    percents = f"""() => {{
        window.percents = []
        const percent = {SHADOW}.querySelector('.percent')
        new MutationObserver(() => percents.push(percent.textContent))
            .observe(percent, {{childList: true}})
    }}"""
    editor.run(percents)
    with editor.page.expect_download() as download:
        clip.click()
        expect(clip).to_have_attribute("title", "Cancel the clip")
        editor.screenshot(f"clip-{renderer}")
    assert download.value.suggested_filename == "zoom.mp4"
    with av.open(download.value.path()) as file:
        assert file.streams.video[0].width == 256
        assert sum(1 for _ in file.decode(video=0)) == round((2.5 * 1.5 + 1) * 30)
    expect(clip).to_have_attribute("title", title)
    first, *_, last = seen = editor.run("percents")
    assert (first, last) == ("0 %", "")
    assert all(re.fullmatch(r"\d+ %", text) for text in seen[:-1])


def test_a_clip_is_cancelled_and_refused(editor, folder, shown):
    viewer = shown("classic")
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
        "No clip was made: The pictures of this run are no longer in ComfyUI's temporary folder. "
        "Run again."
    )
