"""CoZ Zoom Viewer flies through a chain: by itself after a run, and as often as one wants."""

import pytest
from playwright.sync_api import expect

from .conftest import each_renderer
from .picker import LOOP, run_it, set_values
from .viewer import (
    DEEPEST,
    LOOK,
    NODE,
    SHADOW,
    SHOWN,
    VIEW,
    VIEWER,
    WHOLE,
    build_two_steps,
    is_playing,
    press,
    run_two_steps,
)

SCALES = ["first frame", "step 1 of 2", "step 2 of 2"]


@pytest.fixture(autouse=True)
def motion(editor):
    editor.page.emulate_media(reduced_motion="no-preference")
    yield
    editor.page.emulate_media(reduced_motion="reduce")


@pytest.fixture
def shown(editor):
    """A viewer that has run, and shows the whole picture at rest."""

    def shown(renderer, **how):
        viewer = run_two_steps(editor, renderer, **how)
        editor.page.emulate_media(reduced_motion="no-preference")
        return viewer

    return shown


def wait_for_label(editor, text):
    """Until the viewer has shown it since it was built: during a flight, for a moment only."""
    editor.page.wait_for_function("text => labels.some(label => label.includes(text))", arg=text)


def scales_seen(editor):
    """The scales that were shown one after another."""
    names = [text.partition(" · ")[2] for text in editor.run("labels")]
    return [name for i, name in enumerate(names) if name and (not i or names[i - 1] != name)]


def expect_play(viewer, is_on=True):
    expect(viewer.locator(".play")).to_have_attribute("aria-pressed", str(is_on).lower())


@each_renderer
def test_each_run_of_another_chain_flies_in_once(editor, renderer):
    viewer = build_two_steps(editor, renderer)
    run_it(editor)
    wait_for_label(editor, DEEPEST)
    expect_play(viewer, False)
    assert scales_seen(editor) == SCALES
    set_values(editor, LOOP, center_x=0.6, center_y=0.7)
    editor.run("() => { labels.length = 0 }")
    run_it(editor)
    wait_for_label(editor, "step 1 of 2")
    press(viewer, "0")
    expect(viewer.locator(".label")).to_have_text(WHOLE)
    editor.run("() => { labels.length = 0 }")
    run_it(editor)  # of the same windows: what is looked at stays
    editor.settle()
    assert not is_playing(viewer)
    assert editor.run("labels") == []


@each_renderer
@pytest.mark.parametrize("reason", ["off screen", "reduced motion", "hidden tab"])
def test_nothing_flies_by_itself(editor, renderer, reason):
    """Where nobody sees it or wants it."""
    if reason == "reduced motion":
        editor.page.emulate_media(reduced_motion="reduce")
    viewer = build_two_steps(editor, renderer, is_on_screen=reason != "off screen")
    hide = "value => Object.defineProperty(document, 'hidden', {value, configurable: true})"
    editor.run(hide, reason == "hidden tab")
    run_it(editor)
    editor.page.wait_for_function(f"!{SHADOW}.host.classList.contains('empty')")
    editor.settle()
    if reason == "off screen":  # and does not make up for it later
        editor.run(LOOK, [True, 540, 640])
    expect(viewer.locator(".label")).to_have_text(WHOLE)
    editor.settle()
    assert not is_playing(viewer)
    editor.run("() => delete document.hidden")


@each_renderer
def test_space_plays_and_stops(editor, shown, renderer):
    viewer = shown(renderer)
    label = viewer.locator(".label")
    press(viewer, " ")
    expect_play(viewer)
    wait_for_label(editor, "step 1 of 2")
    viewer.press(" ")
    expect_play(viewer, False)
    stopped = label.text_content()
    kept = editor.run(VIEW)
    editor.settle()
    assert label.text_content() == stopped
    assert kept == editor.run(VIEW)
    assert editor.run("app.canvas.read_only") is False  # Space is the graph's key for panning


# How often the viewer has painted a picture since.
COUNT = f"""() => {{
    window.painted = 0
    const {{prototype}} = CanvasRenderingContext2D
    const {{drawImage}} = prototype
    const canvas = {SHADOW}.querySelector('canvas')
    prototype.drawImage = function (...args) {{
        if (this.canvas === canvas) painted++
        return drawImage.apply(this, args)
    }}
    window.stopCounting = () => {{ prototype.drawImage = drawImage }}
}}"""


@each_renderer
def test_a_flight_rests_while_nobody_sees_it(editor, shown, renderer):
    viewer = shown(renderer)
    viewer.locator(".play").click()
    wait_for_label(editor, "step 1 of 2")
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


@each_renderer
def test_the_wheel_and_a_flight_to_a_scale_end_the_play(editor, shown, renderer):
    viewer = shown(renderer)
    box = viewer.locator("canvas").bounding_box()
    for stop in ("wheel", "scale"):
        viewer.locator(".play").click()
        expect_play(viewer)
        if stop == "wheel":
            editor.page.mouse.move(box["x"] + 200, box["y"] + 150)
            editor.page.mouse.wheel(0, -40)
        else:
            viewer.get_by_role("button", name="Fly to 1x", exact=True).click()
        expect_play(viewer, False)


def test_space_presses_the_button_that_the_keyboard_is_on(editor, shown):
    viewer = shown("classic")
    split = viewer.locator("button.split")
    viewer.locator(".divider.parked").wait_for()
    split.focus()
    editor.page.keyboard.press(" ")
    expect(split).to_have_attribute("aria-pressed", "true")
    assert not is_playing(viewer)
    split.click()  # the pointer leaves the focus to the viewer
    editor.page.keyboard.press(" ")
    expect_play(viewer)
    expect(split).to_have_attribute("aria-pressed", "false")


ONE_FRAME = f"""() => {{
    const {{coz_layers, coz_chain}} = app.nodeOutputs[{NODE}.id]
    const [, first] = JSON.parse(coz_layers[0])
    const frames = Array(2).fill(JSON.parse(coz_chain[0]).frames[1])
    const record = {{...JSON.parse(coz_chain[0]), frames, steps: 0, prompts: [], seeds: [],
        windows: [[0, 0, ...frames[0]]], agreements: [], invented: [], real_pixels: []}}
    {NODE}.onExecuted({{coz_layers: [JSON.stringify([first, first])], coz_bicubic: ["[]"],
        coz_chain: [JSON.stringify(record)]}})
}}"""


@each_renderer
def test_play_goes_on_when_a_run_replaces_the_chain(editor, shown, renderer):
    viewer = shown(renderer)
    viewer.locator(".play").click()
    wait_for_label(editor, "step 1 of 2")
    set_values(editor, LOOP, center_x=0.7, center_y=0.8, steps=3)
    run_it(editor)
    wait_for_label(editor, "step 1 of 3")
    assert is_playing(viewer)
    # A chain through which there is no way ends it.
    editor.run(ONE_FRAME)
    expect(viewer.locator(".label")).to_have_text("1x · first frame")
    expect_play(viewer, False)
    viewer.locator(".play").click()
    expect(viewer.locator(".message")).to_contain_text("there is nothing to play")


def test_a_removed_viewer_does_not_fly(editor, shown):
    shown("classic")
    editor.run(
        f"""() => {{
            const play = window.play = {SHADOW}.querySelector('.play')
            app.graph.remove({NODE})
            play.click()
        }}"""
    )
    editor.settle()
    assert editor.run("play.ariaPressed") == "false"


@each_renderer
def test_two_viewers_play_at_once_and_their_buttons_have_one_row(editor, shown, renderer):
    shown(renderer, width=400, height=480, others={"other": SHOWN})
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
    viewers.nth(0).locator(".play").click()
    expect_play(viewers.nth(0), False)
    assert is_playing(viewers.nth(1))
    viewers.nth(0).locator("button.split").click()
    buttons = viewers.nth(0).locator(".tools button:visible").all()
    boxes = [button.bounding_box() for button in buttons]
    assert len(boxes) == 10
    assert len({box["y"] for box in boxes}) == 1
    assert min(box["width"] for box in boxes) >= 26
