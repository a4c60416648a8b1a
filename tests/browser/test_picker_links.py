"""The target picker where something else sets the target: links, masks, subgraphs."""

import pytest
from playwright.sync_api import expect

from .conftest import each_renderer
from .picker import (
    PICKER,
    build,
    chain,
    crosshair,
    feed,
    labels,
    loop_inputs,
    make,
    note,
    point,
    run_it,
    target,
    undone,
    wait_for_picture,
)
from .viewer import SHOWN

NUMBER = make("PrimitiveFloat", {"value": 0.25})
MASK_NOTE = "the mask sets the target, unless it is empty"


@each_renderer
def test_a_linked_target_is_shown_and_never_written(editor, renderer):
    nodes = {
        "source": make("CoZSamplePicture", {"picture": "coffee.png"}),
        "number": NUMBER,
        "crop": make("CoZCropCenterZoom", image=["source", 0], center_x=["number", 0]),
        "shown": make("PreviewImage", images=["crop", 0]),
    }
    build(editor, renderer, nodes)
    box = wait_for_picture(editor, 600, 400)
    expect(note(editor)).to_have_text("a link sets the target")
    before = target(editor, "CoZCropCenterZoom")
    editor.page.mouse.click(*point(box, 0.9, 0.9))
    editor.page.keyboard.press("ArrowLeft")
    assert target(editor, "CoZCropCenterZoom") == before
    assert labels(editor) == []
    run_it(editor)
    editor.page.locator(f"{PICKER} path").first.wait_for(state="attached")
    box = wait_for_picture(editor, 600, 400)
    assert crosshair(editor) == pytest.approx(point(box, 0.25, 0.5), abs=1.5)
    assert labels(editor) == ["4x"]
    feed(editor, "SolidMask", "CoZCropCenterZoom", "mask")
    expect(note(editor)).to_have_text(MASK_NOTE)


def test_in_a_subgraph_it_writes_the_widgets_of_the_node_outside(editor):
    build(editor, "classic", chain("rocket.jpg"))
    editor.run(
        """() => {
            const loop = app.graph.nodes.find(node => node.type === 'CoZChainLoop')
            const {subgraph, node} = app.graph.convertToSubgraph(new Set([loop]))
            const [inner] = subgraph.nodes
            for (const name of ['center_x', 'center_y'])
                subgraph.addInput(name, 'FLOAT').connect(inner.inputs[inner.findInputSlot(name)], inner)
            subgraph.addInput('mask', 'MASK').connect(inner.inputs[inner.findInputSlot('mask')], inner)
            app.canvas.openSubgraph(subgraph, node)
        }"""
    )
    editor.page.mouse.click(*point(wait_for_picture(editor, 640, 427), 0.7, 0.3))
    outer = editor.run(
        """() => app.rootGraph.nodes.find(node => node.isSubgraphNode()).widgets
            .filter(widget => widget.name.startsWith('center_')).map(widget => widget.value)"""
    )
    assert outer == pytest.approx([0.7, 0.3], abs=3e-3)
    inputs = loop_inputs(editor)
    assert [inputs["center_x"], inputs["center_y"]] == outer
    assert "mask" not in inputs
    editor.run(
        """() => {
            const mask = LiteGraph.createNode('SolidMask')
            app.rootGraph.add(mask)
            const outer = app.rootGraph.nodes.find(node => node.isSubgraphNode())
            mask.connect(0, outer, outer.findInputSlot('mask'))
        }"""
    )
    expect(note(editor)).to_have_text(MASK_NOTE)
    assert "mask" in loop_inputs(editor)


def test_a_mask_that_does_not_come_leaves_the_target_free(editor):
    build(editor, "classic", chain("rocket.jpg"))
    editor.run(
        """() => {
            const [mask, invert] = ['SolidMask', 'InvertMask'].map(type => {
                const node = LiteGraph.createNode(type)
                app.graph.add(node)
                node.pos = [0, 600]
                return node
            })
            const loop = app.graph.nodes.find(node => node.type === 'CoZChainLoop')
            mask.connect(0, invert, 0)
            invert.connect(0, loop, loop.findInputSlot('mask'))
        }"""
    )
    always, muted, bypassed = 0, 2, 4
    cases = [(always, always, True), (always, muted, False), (always, bypassed, True)]
    cases += [(muted, bypassed, False), (bypassed, bypassed, False)]
    for i, (mask, invert, comes) in enumerate(cases):
        editor.run(
            """modes => {
                for (const [type, mode] of Object.entries(modes))
                    app.graph.nodes.find(node => node.type === type).mode = mode
            }""",
            {"SolidMask": mask, "InvertMask": invert},
        )
        hint = "click where to zoom" if i == 1 else ""  # until somebody has
        expect(note(editor)).to_have_text(MASK_NOTE if comes else hint)
        before = target(editor)
        place = 0.3 + i / 10
        editor.page.mouse.click(*point(wait_for_picture(editor, 640, 427), place, place))
        assert target(editor) == (before if comes else pytest.approx([place, place], abs=3e-3))
        assert ("mask" in loop_inputs(editor)) == comes


def test_a_number_that_does_not_come_leaves_the_target_free(editor):
    nodes = {"number": NUMBER, **chain("rocket.jpg")}
    nodes["loop"]["links"]["center_x"] = ["number", 0]
    build(editor, "classic", nodes)
    expect(note(editor)).to_have_text("a link sets the target")
    editor.run("() => { app.graph.nodes.find(n => n.type === 'PrimitiveFloat').mode = 2 }")
    expect(note(editor)).to_have_text("click where to zoom")
    editor.page.mouse.click(*point(wait_for_picture(editor, 640, 427), 0.3, 0.6))
    assert target(editor) == pytest.approx([0.3, 0.6], abs=3e-3)
    inputs = loop_inputs(editor)
    assert [inputs["center_x"], inputs["center_y"]] == target(editor)


def test_a_viewer_in_a_subgraph_aims_the_loop_outside_and_undo_takes_that_back(editor):
    build(editor, "classic", chain() | {"shown": SHOWN})
    editor.run(
        """async () => {
            const {findLinkedNode, setTarget} = await import('/extensions/chain-of-zoom/host/graph.js')
            const viewer = app.graph.nodes.find(node => node.type === 'CoZZoomViewer')
            const {subgraph} = app.graph.convertToSubgraph(new Set([viewer]))
            setTarget(findLinkedNode(subgraph.nodes[0], 'chain'), {x: 0.25, y: 1})
        }"""
    )
    assert target(editor) == [0.25, 1]
    assert undone(editor, 0.25) == 0.5
    assert editor.run("app.graph.nodes.some(node => node.isSubgraphNode())")
