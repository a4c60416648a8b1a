"""The first template from opening to its deepest frame, in both frontends and renderers, and the
templates as apps: opened, set, run and looked at in app mode.
"""

import json
import re
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from PIL import Image
from playwright.sync_api import expect

from tools.host.workflow import FIRST_TEMPLATE, WORKFLOWS

from .conftest import TIMEOUT
from .picker import LOOP, PICKER, node, point, run_it, set_values, target, wait_for_picture
from .test_frontend import FRAME as PICTURE
from .test_frontend import open_template, wait_for_pictures
from .test_templates import require_order
from .viewer import press

APPS = [path for path in WORKFLOWS if path.stem[0] in "1256" and path.parent.name == "workflows"]
# How the run ends, and what its nodes send.
WATCH = """() => {
    window.end = null
    window.outputs = {}
    app.api.addEventListener('executed', ({detail}) => {
        window.outputs[detail.display_node ?? detail.node] = detail.output })
    for (const end of ['execution_success', 'execution_error', 'execution_interrupted'])
        app.api.addEventListener(end, () => { window.end = end }, {once: true})
}"""
FIRST_VIEW = re.compile("first frame|whole image")
STORE = "[appModeStore]"  # how the frontend begins what it has to say of an app's entries

# The templates with a checkpoint run with a built-in upscale model here, with a small step.
WITHOUT_DOWNLOADS = """() => {
    const loop = app.graph.nodes.find(node => node.type === 'CoZChainLoop')
    const set = (name, value) => {
        const widget = loop.widgets.find(widget => widget.name === name)
        widget.value = value
        widget.callback?.(value)
    }
    const loader = LiteGraph.createNode('UpscaleModelLoader')
    app.graph.add(loader)
    loader.pos = [0, -200]
    loader.widgets[0].value = 'coz_lite_x4.safetensors'
    set('backbone', 'upscale model')
    loader.connect(0, loop, loop.findInputSlot('backbone.upscale_model'))
    set('size', 128)
}"""

# What the middle of the app shows while a run goes on: the first frame that has come.
FRAME = """() => {
    const image = document.querySelector('[data-testid=linear-center-panel] img.size-full')
    return image?.src.startsWith('blob:') && image.naturalWidth && window.end === null
        && [image.naturalWidth, image.naturalHeight]
}"""


@pytest.fixture
def said(editor):
    """What the frontend says of the app's entries in the console."""
    said = []
    listen = lambda message: STORE in message.text and said.append(message.text)  # noqa: E731
    editor.page.on("console", listen)
    yield said
    editor.page.remove_listener("console", listen)


def switch(editor, to):
    """To "app" or back to "graph", as a person does."""
    if editor.frontend == "newest":
        name = {"app": "Enter app mode", "graph": "Enter node graph"}[to]
        editor.page.get_by_test_id("view-mode-toggle").get_by_role("button", name=name).click()
    else:
        editor.run("app.extensionManager.command.execute('Comfy.ToggleLinear')")
    run_button = expect(editor.page.get_by_test_id("linear-run-button"))
    run_button.to_be_visible() if to == "app" else run_button.to_have_count(0)


def value_of(editor, node, name):
    script = "([id, name]) => app.graph.getNodeById(id).widgets.find(w => w.name === name).value"
    return editor.run(script, [node, name])


def open_graph(editor, path):
    editor.use_renderer("classic")  # what a new installation has
    if editor.frontend == "newest":
        seen = "app.extensionManager.setting.set('Comfy.OnboardingCoachmarks.Seen', ['appMode'])"
        editor.run(seen)  # else its tour covers the app
    open_template(editor, path)
    expect(editor.page.locator(".coz-sample")).to_be_visible()


@pytest.mark.parametrize("frontend", ["pinned", "newest"], indirect=True)
@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_the_first_template_is_aimed_and_run_and_shows_its_frames(editor, renderer):
    editor.use_renderer(renderer)
    open_template(editor)
    page = editor.page
    place = {"classic": 0.3, "vue": 0.4}[renderer]  # a run that is all cached sends no picture
    page.mouse.click(*point(wait_for_picture(editor, *PICTURE), place, 0.4))
    aimed = target(editor)
    assert aimed == pytest.approx([place, 0.4], abs=0.01)
    (record,) = (out["coz_chain"][0] for out in run_it(editor).values() if "coz_layers" in out)
    assert json.loads(record)["target"] == aimed
    if renderer == "classic":
        wait_for_pictures(editor, LOOP, [PICTURE] * 3)
    else:
        loop = page.locator(f'[data-node-id="{editor.run(node(LOOP) + ".id")}"]')
        expect(loop.locator("img[src*='/view']").nth(2)).to_be_visible()
        assert loop.get_by_role("alert").count() == 0
    viewer = page.locator(".coz-viewer")
    expect(viewer.locator(".label")).to_have_text(FIRST_VIEW)
    press(viewer, "End")
    expect(viewer.locator(".label")).to_contain_text("step 2 of 2")
    expect(viewer.locator(".real")).to_contain_text("real pixels")
    require_order(editor)
    assert page.get_by_role("dialog").count() == 0
    assert page.get_by_test_id("error-overlay").count() == 0


def run_as_app(editor, said, path, place):
    page = editor.page
    open_graph(editor, path)
    if "no downloads" not in path.stem:
        editor.run(WITHOUT_DOWNLOADS)
    if path.stem[0] == "6":
        set_values(editor, "CoZFullImage", scale=2)  # takes a quarter of the time
    extra = json.loads(path.read_text("utf-8"))["extra"]
    switch(editor, "app")

    items = page.get_by_test_id("app-mode-widget-item")
    expect(items).to_have_count(len(extra["linearData"]["inputs"]))
    keys = [unquote(item.get_attribute("data-widget-key")).split(":")[1:] for item in items.all()]
    inputs = {name: int(node) for node, name in keys}
    assert [[node, name] for name, node in inputs.items()] == extra["linearData"]["inputs"]

    def item(name):
        return items.nth(list(inputs).index(name))

    if "target" in inputs:
        picker = item("target").locator(PICKER)
        expect(picker.locator("img")).to_be_visible()
        box = picker.bounding_box()
        page.mouse.click(box["x"] + box["width"] * place, box["y"] + box["height"] / 2)
        loop = inputs["target"]
        assert value_of(editor, loop, "center_x") == pytest.approx(place, abs=0.01)
        assert value_of(editor, loop, "center_y") == pytest.approx(0.5, abs=0.01)
        page.keyboard.press("ArrowRight")
        editor.settle()
        assert value_of(editor, loop, "center_x") > place + 1e-4
        steps = item("steps").locator("input")
        steps.fill("2")  # a frame is seen before the run ends
        steps.press("Enter")
        assert value_of(editor, loop, "steps") == 2
    editor.run(WATCH)
    results = page.get_by_test_id("linear-history-item")
    before = results.count()
    page.get_by_test_id("linear-run-button").get_by_role("button", name="Run").click()
    assert page.wait_for_function(FRAME).json_value()
    page.wait_for_function("window.end", timeout=2 * TIMEOUT)
    assert editor.run("window.end") == "execution_success"

    expect(results).to_have_count(before + 1)
    expect(page.get_by_test_id("linear-in-progress-item")).to_have_count(0)
    (output,) = extra["linearData"]["outputs"]
    sent = editor.run("id => window.outputs[id]", output)
    (file,) = sent.get("coz_deepest") or sent["images"]
    shown = page.get_by_test_id("linear-center-panel").locator("img.size-full")
    query = parse_qs(urlsplit(shown.get_attribute("src")).query)
    assert query["filename"] == [file["filename"]]
    panel = page.get_by_test_id("linear-center-panel")
    expect(panel).to_contain_text(file.get("display_name", file["filename"]))

    switch(editor, "graph")
    require_order(editor)
    if "target" in inputs:
        expect(page.locator(".coz-viewer .label")).to_have_text(FIRST_VIEW)
    assert said == []


@pytest.mark.parametrize(
    "path",
    [
        # Template 5 differs from 2 by its backbone, in whose place this test uses another.
        pytest.param(path, marks=pytest.mark.long if path.stem[0] == "5" else (), id=path.stem)
        for path in APPS
    ],
)
def test_a_template_is_an_app(editor, said, path):
    run_as_app(editor, said, path, 0.25)


@pytest.mark.parametrize("frontend", ["newest"], indirect=True)
def test_the_first_template_is_an_app_in_the_newest_frontend(editor, said):
    run_as_app(editor, said, FIRST_TEMPLATE, 0.35)  # a run that is all cached sends no frame


def test_an_own_picture_is_chosen_or_dropped_in_the_app(editor, tmp_path):
    page = editor.page
    open_graph(editor, FIRST_TEMPLATE)
    switch(editor, "app")
    items = page.get_by_test_id("app-mode-widget-item")
    shown = f"""size => {{
        const image = document.querySelector('{PICKER} img')
        return String([image?.naturalWidth, image?.naturalHeight]) === String(size)
    }}"""

    chosen = tmp_path / "chosen in an app.png"
    Image.new("RGB", (90, 60), "teal").save(chosen)
    button = items.get_by_role("button", name="choose or drop your own picture")
    with page.expect_file_chooser() as chooser:
        button.click()
    chooser.value.set_files(chosen)
    page.wait_for_function(shown, arg=[90, 60])
    assert value_of(editor, 1, "own_picture") == chosen.name

    dropped = page.evaluate_handle(
        """async () => {
            const canvas = new OffscreenCanvas(50, 80)
            canvas.getContext('2d')
            const data = new DataTransfer()
            data.items.add(new File([await canvas.convertToBlob()], 'dropped.png', {type: 'image/png'}))
            return data
        }"""
    )
    for event in ("dragenter", "dragover", "drop"):
        button.dispatch_event(event, {"dataTransfer": dropped})
    page.wait_for_function(shown, arg=[50, 80])
    switch(editor, "graph")
