"""What widgets of ours listen to, and what they leave to the graph and the page."""

import json

import pytest

from .picker import build, chain

RENDERERS = pytest.mark.parametrize("renderer", ["classic", "vue"])
SHOWN = {"type": "CoZZoomViewer", "links": {"chain": ["loop", 3]}}
REPORT = {"type": "CoZMeasure", "links": {"chain": ["loop", 3]}}


def node(node_type):
    return f"app.graph.nodes.find(({{type}}) => type === '{node_type}')"


def scale(editor):
    return editor.run("app.canvas.ds.scale")


def place(editor, node_type):
    """Alone on the screen, in its own size."""
    editor.run(
        f"""() => {{
            const node = {node(node_type)}
            node.pos = [4000, 0]
            app.canvas.ds.scale = 1
            app.canvas.ds.offset = [-3700, 120]
            app.canvas.setDirty(true, true)
        }}"""
    )
    editor.page.wait_for_timeout(400)


def middle(box):
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@RENDERERS
@pytest.mark.parametrize("kind", ["CoZZoomViewer", "CoZMeasure", "CoZChainLoop"])
def test_a_wheel_over_a_node_moves_the_graph(editor, renderer, kind):
    build(editor, renderer, chain() | {"viewer": SHOWN, "report": REPORT})
    place(editor, kind)
    names = {"CoZZoomViewer": "zoom", "CoZMeasure": "report", "CoZChainLoop": "target"}
    element = editor.page.evaluate_handle(
        f"() => {node(kind)}.widgets.find(({{name}}) => name === '{names[kind]}').element"
    ).as_element()
    editor.page.mouse.move(*middle(element.bounding_box()))
    before = scale(editor)
    editor.page.mouse.wheel(0, -100)
    editor.page.wait_for_function("before => app.canvas.ds.scale > before", arg=before)
    editor.page.mouse.wheel(0, 100)
    editor.page.wait_for_timeout(200)
    offset = editor.run("[...app.canvas.ds.offset]")
    x, y = middle(element.bounding_box())
    editor.page.mouse.move(x, y)
    editor.page.mouse.down(button="middle")
    editor.page.mouse.move(x + 60, y + 30, steps=4)
    editor.page.mouse.up(button="middle")
    moved = editor.run("[...app.canvas.ds.offset]")
    assert [b - a for a, b in zip(offset, moved, strict=True)] == pytest.approx(
        [60 / scale(editor), 30 / scale(editor)], abs=2
    )


def test_a_wheel_over_a_long_report_scrolls_it_first(editor):
    build(editor, "classic", chain() | {"report": REPORT})
    place(editor, "CoZMeasure")
    widget = f"{node('CoZMeasure')}.widgets.find(({{name}}) => name === 'report').element"
    editor.run(
        f"() => {node('CoZMeasure')}.onExecuted({{text: [{json.dumps('a line' + chr(10))}.repeat(99)]}})"
    )
    element = editor.page.evaluate_handle(widget).as_element()
    editor.page.mouse.move(*middle(element.bounding_box()))
    before = scale(editor)
    editor.page.mouse.wheel(0, 90)
    editor.page.wait_for_function(f"{widget}.scrollTop > 0")
    assert scale(editor) == before
    editor.run(f"() => {{ {widget}.scrollTop = 0 }}")
    editor.page.mouse.wheel(0, -90)
    editor.page.wait_for_function("before => app.canvas.ds.scale > before", arg=before)
