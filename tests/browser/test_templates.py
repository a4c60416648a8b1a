"""The bundled workflows as somebody sees them who opens them on a screen of 1440 x 900 pixels."""

import itertools
import json

import pytest

from tools.host import ROOT
from tools.host.workflow import FIRST_TEMPLATE, WORKFLOWS, read_prompt

from .conftest import RESTS
from .picker import LOOP, node, run_it, set_values
from .test_frontend import open_template, wait_for_pictures

WHOLE = next(path for path in WORKFLOWS if "4x (no downloads)" in path.stem)
LISTED = [path for path in WORKFLOWS if path.parent.name == "workflows"]
IN_ONE_VIEW = [path for path in LISTED if path.stem[0] in "126"]
LEAST_ZOOM = {True: 0.57, False: 0.45}
"""Of a workflow that is read in one view, and of one that is read group by group."""
MOST_PIXELS = {True: (1900, 1060), False: (2500, 1400)}
START_PIXELS = (1800, 900)
LEAST_TEXT = 7.8  # pixels on the screen
TITLE = 30

# [left, top, right, bottom] of each node with its title, as it is drawn.
BOXES = f"""() => app.graph.nodes.map(({{id, pos, size}}) =>
    [id, [pos[0], pos[1] - {TITLE}, pos[0] + size[0], pos[1] + size[1]]])"""
GROUPS = """() => app.graph.groups.map(({title, pos, size}) =>
    [title, [pos[0], pos[1], pos[0] + size[0], pos[1] + size[1]]])"""
SHOW_GROUP = """group => {
    const {pos, size} = app.graph.groups[group]
    app.canvas.ds.fitToBounds([...pos, ...size])
    app.canvas.setDirty(true, true)
}"""
# Of each note in the order of the workflow: the size of its smallest text on the screen in pixels,
# and by how much its last line lies above its lower edge.
NOTES = """() => app.graph.nodes.filter(({type}) => type === 'MarkdownNote').map(node => {
    const {element} = node.widgets[0], scale = app.canvas.ds.scale
    const texts = [...element.querySelectorAll('h1, h2, h3, p')].filter(({textContent}) => textContent)
    return {
        size: scale * Math.min(...texts.map(text => parseFloat(getComputedStyle(text).fontSize))),
        room: element.getBoundingClientRect().bottom -
            Math.max(...texts.map(text => text.getBoundingClientRect().bottom)),
    }
})"""
# The least height that the first node of a type can be drawn in.
LEAST_HEIGHT = """type => {
    const node = app.graph.nodes.find(node => node.type === type)
    return node.widgets.reduce((height, widget) =>
        height + (widget.computeLayoutSize?.(node)?.minHeight ?? 24),
        Math.min(...node.widgets.map(widget => widget.y)))
}"""


@pytest.fixture
def opened(editor):
    """Opens a workflow as its template."""
    editor.page.set_viewport_size({"width": 1440, "height": 900})

    def opened(path, renderer="classic"):
        editor.use_renderer(renderer)
        open_template(editor, path)
        editor.page.wait_for_function(RESTS)

    return opened


def is_inside(box, around):
    return (
        around[0] <= box[0] and around[1] <= box[1] and box[2] <= around[2] and box[3] <= around[3]
    )


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def require_order(editor):
    """No node lies on another, and none leaves the group that it is in."""
    boxes = dict(editor.run(BOXES))
    for a, b in itertools.combinations(boxes, 2):
        assert not overlap(boxes[a], boxes[b]), (a, b)
    for title, group in editor.run(GROUPS):
        for each, box in boxes.items():
            assert is_inside(box, group) or not overlap(box, group), (title, each)


def test_six_are_listed(editor):
    page = editor.page
    page.get_by_role("button", name="Templates").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("chain-of-zoom", exact=True).click()
    page.get_by_test_id(f"template-workflow-{FIRST_TEMPLATE.stem}").wait_for()
    ids = dialog.locator("[data-testid^=template-workflow-]").evaluate_all(
        "cards => cards.map(card => card.dataset.testid)"
    )
    assert sorted(ids) == [f"template-workflow-{path.stem}" for path in LISTED]
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_template_opens_readable_and_means_what_it_says(editor, opened, path):
    opened(path)
    in_one_view = path in IN_ONE_VIEW
    assert editor.run("app.canvas.ds.scale") >= LEAST_ZOOM[in_one_view]
    boxes = [box for _, box in editor.run(BOXES)]
    width, height = (
        max(box[i + 2] for box in boxes) - min(box[i] for box in boxes) for i in (0, 1)
    )
    most = START_PIXELS if path == FIRST_TEMPLATE else MOST_PIXELS[in_one_view]
    assert width <= most[0]
    assert height <= most[1]
    require_order(editor)
    if not in_one_view:
        first = json.loads(path.read_text("utf-8"))["groups"][0]
        assert first["title"] == "Start here"
        editor.run(SHOW_GROUP, 0)
        editor.settle()
    assert not editor.run("app.canvas.low_quality")  # texts are drawn
    assert editor.run(NOTES)[0]["size"] >= LEAST_TEXT
    editor.run("() => { app.canvas.ds.scale = 0.8; app.canvas.setDirty(true, true) }")
    editor.settle()
    assert all(note["room"] >= 0 for note in editor.run(NOTES)), editor.run(NOTES)
    for renderer in ("classic", "vue"):
        editor.use_renderer(renderer)
        assert editor.prompt() == read_prompt(path)


@pytest.mark.long
def test_the_whole_picture_is_compared_with_its_source(editor, opened):
    opened(WHOLE, "vue")  # the classic one draws no Image Compare
    run_it(editor)
    require_order(editor)
    editor.page.wait_for_function(
        f"""() => String([...document.querySelectorAll(`[data-node-id="${{{node("ImageCompare")}.id}}"] img`)]
            .map(image => image.naturalWidth).sort()) === '2048,512'"""
    )


def test_the_groups_have_room_for_what_a_run_shows(editor, opened):
    """What Chain Loop grows by in a run of four steps fits into it where it lies in a group."""
    opened(FIRST_TEMPLATE)
    before = editor.run(LEAST_HEIGHT, LOOP)
    set_values(editor, LOOP, steps=4, size=64)
    run_it(editor)
    wait_for_pictures(editor, LOOP, [[64, 64]] * 5)
    growth = editor.run(LEAST_HEIGHT, LOOP) - before
    assert growth > 200
    for name in ("3 Chain-of-Zoom SD3 + VLM", "4 Chain-of-Zoom as in the paper (AR-2)"):
        opened(ROOT / "workflows" / f"{name}.json")
        needed = editor.run(LEAST_HEIGHT, LOOP) + growth
        (zoom,) = (box for title, box in editor.run(GROUPS) if title == "Zoom")
        assert needed <= zoom[3], name
