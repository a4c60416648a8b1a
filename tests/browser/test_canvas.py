"""What widgets of ours listen to, and what they leave to the graph and the page."""

import numpy as np
import pytest
from playwright.sync_api import expect

from .conftest import each_renderer
from .picker import build, chain, make, middle, node, run_it
from .viewer import SHOWN, VIEWER, fly, middle_of

REPORT = make("CoZMeasure", chain=["loop", 3])

ELEMENTS = {
    "CoZZoomViewer": "zoom",
    "CoZMeasure": "report",
    "CoZChainLoop": "target",
    "CoZSamplePicture": "sample",
}
"""The widgets that show an element, by their nodes."""

# What is listened to on the window, and the observers at work, by their owners in the pack.
COUNT = """() => {
    const held = window.held = {listeners: new Map(), observers: new Set()}
    const keyOf = (type, act, options) => [type, Boolean(options?.capture ?? options), act]
    const isOurs = () => new Error().stack.includes('/extensions/chain-of-zoom/')
    const {addEventListener: add, removeEventListener: remove} = window
    window.addEventListener = function (type, act, options) {
        if (isOurs()) held.listeners.set(act, (held.listeners.get(act) ?? new Set()).add(type))
        return add.call(window, type, act, options)
    }
    window.removeEventListener = function (type, act, options) {
        held.listeners.get(act)?.delete(type)
        return remove.call(window, type, act, options)
    }
    const {ResizeObserver: Real} = window
    window.ResizeObserver = class extends Real {
        observe(...values) {
            if (isOurs()) held.observers.add(this)
            super.observe(...values)
        }
        disconnect() {
            held.observers.delete(this)
            super.disconnect()
        }
    }
    window.countHeld = () => ({
        listeners: [...held.listeners.values()].flatMap(types => [...types]).sort(),
        observers: held.observers.size,
    })
    window.stopCounting = () => {
        delete window.addEventListener
        delete window.removeEventListener
        window.ResizeObserver = Real
    }
}"""


def scale(editor):
    return editor.run("app.canvas.ds.scale")


def place(editor, node_type):
    """Alone on the screen, in its own size."""
    editor.run(
        f"""() => {{
            const node = {node(node_type)}
            const x = 4000 * (1 + app.graph.nodes.indexOf(node))
            node.pos = [x, 0]
            app.canvas.ds.scale = 1
            app.canvas.ds.offset = [300 - x, 120]
            app.canvas.setDirty(true, true)
        }}"""
    )
    editor.settle(20)


@each_renderer
def test_a_wheel_over_a_node_moves_the_graph(editor, renderer):
    build(editor, renderer, chain() | {"viewer": SHOWN, "report": REPORT})
    for kind, widget in ELEMENTS.items():
        place(editor, kind)
        require_forwarding(editor, f"{node(kind)}.widgets.find(({{name}}) => name === '{widget}')")


def require_forwarding(editor, widget):
    element = editor.page.evaluate_handle(f"() => {widget}.element").as_element()
    editor.page.mouse.move(*middle(element.bounding_box()))
    before = scale(editor)
    editor.page.mouse.wheel(0, -100)
    editor.page.wait_for_function("before => app.canvas.ds.scale > before", arg=before)
    editor.page.mouse.wheel(0, 100)
    is_back = "before => Math.abs(app.canvas.ds.scale / before - 1) < 1e-6"
    editor.page.wait_for_function(is_back, arg=before)
    offset = editor.run("[...app.canvas.ds.offset]")
    x, y = middle(element.bounding_box())
    editor.page.mouse.move(x, y)
    editor.page.mouse.down(button="middle")
    editor.page.mouse.move(x + 60, y + 30, steps=4)
    editor.page.mouse.up(button="middle")
    moved = np.subtract(editor.run("[...app.canvas.ds.offset]"), offset)
    assert moved * scale(editor) == pytest.approx([60, 30], abs=2 * scale(editor))


def test_a_wheel_over_a_long_report_scrolls_it_first(editor):
    build(editor, "classic", chain() | {"report": REPORT})
    place(editor, "CoZMeasure")
    widget = f"{node('CoZMeasure')}.widgets.find(({{name}}) => name === 'report').element"
    editor.run(f"text => {node('CoZMeasure')}.onExecuted({{text: [text]}})", "a line\n" * 99)
    element = editor.page.evaluate_handle(widget).as_element()
    editor.page.mouse.move(*middle(element.bounding_box()))
    before = scale(editor)
    editor.page.mouse.wheel(0, 90)
    editor.page.wait_for_function(f"{widget}.scrollTop > 0")
    assert scale(editor) == before
    editor.run(f"() => {{ {widget}.scrollTop = 0 }}")
    editor.page.mouse.wheel(0, -90)
    editor.page.wait_for_function("before => app.canvas.ds.scale > before", arg=before)


@each_renderer
def test_a_deleted_viewer_listens_no_more(editor, renderer):
    build(editor, renderer, chain())
    editor.run(COUNT)
    try:
        editor.run(
            """() => {
                const viewer = LiteGraph.createNode('CoZZoomViewer')
                viewer.pos = [900, 0]
                app.graph.add(viewer)
                app.canvas.ds.offset = [-800, 130]
                app.canvas.setDirty(true, true)
            }"""
        )
        viewer = editor.page.locator(VIEWER)
        expect(viewer).to_be_visible()
        viewer.focus()
        assert editor.run("countHeld()") == {
            "listeners": ["resize", "touchend", "touchmove", "touchstart", "wheel"],
            "observers": 1,
        }
        editor.run(f"() => app.graph.remove({node('CoZZoomViewer')})")
        expect(viewer).to_have_count(0)
        assert editor.run("countHeld()") == {"listeners": [], "observers": 0}
        # Nor one that never got into a graph: the frontend makes such nodes to copy from.
        editor.run("() => { LiteGraph.createNode('CoZZoomViewer') }")
        assert editor.run("countHeld()") == {"listeners": [], "observers": 0}
    finally:
        editor.run("stopCounting()")


@each_renderer
def test_a_lost_end_of_a_touch_makes_no_pinch(editor, renderer):
    build(editor, renderer, chain() | {"viewer": SHOWN})
    place(editor, "CoZZoomViewer")
    run_it(editor)
    viewer = editor.page.locator(VIEWER)
    label = viewer.locator(".label")
    expect(label).not_to_be_empty()
    fly(viewer, "2x")
    before = label.text_content()
    x, y = middle_of(viewer)

    def touch(kind, *offsets):
        editor.touch(kind, *((x + dx, y) for dx in offsets))

    # Another element takes the finger over, and gets its end.
    viewer.evaluate(
        """root => root.addEventListener('pointermove', event => {
            document.body.setPointerCapture(event.pointerId)
        }, {capture: true, once: true})"""
    )
    touch("touchStart", -40)
    for dx in (-30, -20, -10):
        touch("touchMove", dx)
    touch("touchEnd")
    touch("touchStart", 0)
    for dx in (20, 40, 60, 80):
        touch("touchMove", dx)
    touch("touchEnd")
    editor.settle()
    assert label.text_content() == before


TITLES = {
    "CoZZoomViewer": "CoZ Zoom Viewer",
    "CoZMeasure": "CoZ Chain Report",
    "CoZFitImage": "CoZ First Frame",
}


@each_renderer
def test_the_side_panel_lists_no_empty_input(editor, renderer):
    others = {"viewer": SHOWN, "report": REPORT, "fit": make("CoZFitImage")}
    build(editor, renderer, chain() | others)
    editor.use_side_panel(True)
    panel = editor.page.get_by_test_id("properties-panel")
    for kind, title in TITLES.items():
        editor.run(f"() => {{ app.canvas.deselectAll(); app.canvas.selectItems([{node(kind)}]) }}")
        expect(panel).to_contain_text(title)
        editor.settle()
        words = panel.inner_text().splitlines()
        assert not {"zoom", "report", "target"} & set(words), words
        assert ("frame" in words) == (kind == "CoZFitImage")
    editor.use_side_panel(False)
