"""What nodes show of a run after they were moved, and after undo."""

import json

from playwright.sync_api import expect

from .conftest import each_renderer
from .picker import (
    FOUR_STEPS,
    LOOP,
    UNDO_QUEUE,
    build,
    chain,
    make,
    node,
    point,
    run_it,
    set_values,
    target,
    wait_for_picture,
)
from .test_frontend import wait_for_pictures
from .viewer import SHOWN, VIEWER

REPORT = make("CoZMeasure", chain=["loop", 3])


@each_renderer
def test_an_unpacked_viewer_shows_its_run(editor, renderer):
    """And one that was put into a subgraph after the run."""
    build(editor, renderer, chain() | {"viewer": SHOWN, "report": REPORT})
    run_it(editor)
    label = editor.page.locator(f"{VIEWER} .label")
    expect(label).not_to_be_empty()
    shown = label.text_content()
    rows = """() => {
        const graphs = [app.rootGraph, ...app.rootGraph.subgraphs.values()]
        const report = graphs.flatMap(({nodes}) => nodes).find(({type}) => type === 'CoZMeasure')
        const {element} = report.widgets.find(({name}) => name === 'report')
        return element.shadowRoot.querySelectorAll('tr').length
    }"""
    assert editor.run(rows) == 4
    # A copy has not run, and shows nothing.
    editor.run(
        f"""() => {{
            window.copy = {node("CoZZoomViewer")}.clone()
            app.graph.add(window.copy)
        }}"""
    )
    expect(editor.page.locator(VIEWER)).to_have_count(2)
    editor.settle(30)
    labels = editor.page.locator(f"{VIEWER} .label")
    assert labels.all_text_contents() == [shown, ""]
    editor.run("() => app.graph.remove(window.copy)")
    expect(labels).to_have_count(1)
    editor.run(
        f"""async () => {{
            app.canvas.deselectAll()
            app.canvas.selectItems([{node("CoZZoomViewer")}, {node("CoZMeasure")}])
            await app.extensionManager.command.execute('Comfy.Graph.ConvertToSubgraph')
        }}"""
    )
    editor.page.wait_for_function("app.graph.nodes.some(node => node.isSubgraphNode())")
    editor.page.wait_for_function(f"({rows})() === 4")
    editor.run(
        """async () => {
            app.canvas.deselectAll()
            app.canvas.selectItems([app.graph.nodes.find(node => node.isSubgraphNode())])
            await app.extensionManager.command.execute('Comfy.Graph.UnpackSubgraph')
        }"""
    )
    editor.page.wait_for_function("!app.graph.nodes.some(node => node.isSubgraphNode())")
    expect(label).to_have_text(shown)
    editor.page.wait_for_function(f"({rows})() === 4")


def test_the_frames_stay_inside_the_node_after_undo(editor):
    editor.use_renderer("classic")
    workflow = json.loads(FOUR_STEPS.read_text("utf-8"))
    editor.run("workflow => app.loadGraphData(workflow)", workflow)
    editor.run(
        f"""() => {{
            const loop = {node(LOOP)}
            app.canvas.ds.scale = 0.6
            app.canvas.ds.offset = [-loop.pos[0] + 300, -loop.pos[1] + 150]
            app.canvas.setDirty(true, true)
        }}"""
    )
    set_values(editor, LOOP, size=64, steps=2)
    box = wait_for_picture(editor, 512, 512)
    run_it(editor)
    editor.page.wait_for_function(f"{node(LOOP)}.imgs?.length === 3")
    wait_for_picture(editor, 512, 512)
    kept = editor.run(f"{UNDO_QUEUE}.length")
    editor.page.mouse.click(*point(box, 0.7, 0.5))
    editor.page.wait_for_function(f"kept => {UNDO_QUEUE}.length > kept", arg=kept)
    assert target(editor)[0] > 0.6
    # Each time that the loop is drawn: its height then, and where its frames end.
    editor.run(
        """() => {
            const seen = window.drawnLoops = [], draw = app.canvas.drawNode
            app.canvas.drawNode = function (node, context) {
                const height = node.size[1]
                draw.call(this, node, context)
                if (node.type === 'CoZChainLoop' && node.imageRects?.length)
                    seen.push([height, Math.max(...node.imageRects.map(([, y, , h]) => y + h))])
            }
        }"""
    )
    editor.page.keyboard.press("Control+z")
    editor.page.wait_for_function(
        f"{node(LOOP)}.imgs?.length === 3 && window.drawnLoops.length && {node(LOOP)}.widgets"
        ".find(({name}) => name === 'center_x').value < 0.5"
    )
    wait_for_picture(editor, 512, 512)
    seen = editor.run("window.drawnLoops")
    editor.run("() => { delete app.canvas.drawNode }")
    # The text below the frames comes a moment after them, and the node grows in the next drawing.
    height, end = seen[-1]
    assert end <= height, seen


def test_an_image_of_one_step_that_loads_late_does_not_replace_all(editor):
    build(editor, "classic", chain(size=64, steps=2))
    run_it(editor)
    wait_for_pictures(editor, LOOP, [[64, 64]] * 3)
    show = f"""make => {{
        const loop = {node(LOOP)}
        loop.imgs = [new Function('loop', `return ${{make}}`)(loop)]
        return loop.imgs.length
    }}"""
    assert editor.run(show, "loop.imgs.at(-1)") == 3
    fewer_steps = f"""() => {{
        const loop = {node(LOOP)}
        loop.imgs = loop.imgs.slice(0, 2)
        return loop.imgs.length
    }}"""
    assert editor.run(fewer_steps) == 2
    live = "Object.assign(new Image(), {src: URL.createObjectURL(new Blob())})"
    assert editor.run(show, live) == 1
