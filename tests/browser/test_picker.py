"""The target picker: the picture on the node, the windows drawn on it, what a pick writes."""

import json
import random

import pytest
from playwright.sync_api import expect

from coz.geometry import Target, place_first_frame, place_window, plan_steps
from coz.render.strip import write_factor_label

from .picker import (
    LOOP,
    PICKER,
    build,
    chain,
    crosshair,
    labels,
    note,
    point,
    run_it,
    target,
    type_number,
    upload,
    wait_for_picture,
)

MASK_NOTE = "the mask sets the target, unless it is empty"
RENDERERS = pytest.mark.parametrize("renderer", ["classic", "vue"])


def test_drawn_windows_are_those_that_are_cut(editor):
    rng = random.Random(0)
    cases = []
    for _ in range(400):
        side = rng.choice([1, 7, 64, 300, 1000, 4000])
        height, width = rng.randint(1, side), rng.randint(1, side)
        scale = rng.choice([1.5, 1.6, 2, 2.56, 3.2, 4, 5.12, 6.4, 8, rng.uniform(1.5, 8)])
        frame = rng.choice(["native pixels", "whole picture square", "whole picture"])
        size, steps = 16 * rng.randint(1, 64), rng.randint(1, 6)
        center = rng.choice([(0.0, 1.0), (0.5, 0.5), (rng.random(), rng.random())])
        cases.append([height, width, size, frame, scale, steps, *center])
    drawn = editor.run(
        """async cases => {
            const {firstFrame, planWindows, zoomWindow} =
                await import('/extensions/chain-of-zoom/picker/geometry.js')
            const flat = ({x, y, width, height}) => [x, y, width, height]
            return cases.map(([height, width, size, frame, scale, steps, x, y]) => {
                const first = firstFrame(height, width, size, frame, {x, y})
                return [[first.height, first.width, first.target.x, first.target.y],
                    flat(zoomWindow(height, width, scale, {x, y})),
                    ...planWindows(first, scale, steps).map(flat)]
            })
        }""",
        cases,
    )
    for (height, width, size, frame, scale, steps, *center), got in zip(cases, drawn, strict=True):
        first = place_first_frame(height, width, size, frame, Target(*center))
        plan = plan_steps(first.height, first.width, scale, steps, first.target)
        windows = [first.window, *(step.window for step in plan)]
        assert got == [
            [first.height, first.width, *first.target],
            list(place_window(height, width, scale, Target(*center))),
            *map(list, windows),
        ]


def test_drawn_windows_lie_in_the_source_where_the_chain_has_them(editor, make_chain):
    record = make_chain(size=64, scale=2.7, steps=5, center=(0.93, 0.4))
    height, width = record.frames[0].shape[-2:]
    drawn, names = editor.run(
        """async ([height, width, x, y]) => {
            const {formatFactorBetween, firstFrame, mapToSource, planWindows} =
                await import('/extensions/chain-of-zoom/picker/geometry.js')
            const first = firstFrame(height, width, 64, 'native pixels', {x, y})
            const regions = mapToSource(first, planWindows(first, 2.7, 5))
            return [regions.map(({x, y, width, height}) => [x, y, width, height]),
                regions.map(region => formatFactorBetween(regions[0], region))]
        }""",
        [height, width, *record.target],
    )
    layers = range(1, record.steps + 2)
    assert drawn == [list(record.window_in(layer, 0)) for layer in layers]
    assert names == [write_factor_label(record, layer) for layer in layers]


@RENDERERS
def test_a_picked_target_is_what_runs(editor, renderer):
    page = editor.page
    build(editor, renderer, chain())
    box = wait_for_picture(editor, 1000, 872)  # before anything has run
    before = editor.run("[...app.graph.nodes.find(n => n.type === 'CoZChainLoop').pos]")

    page.mouse.click(*point(box, 0.25, 0.75))
    x, y = target(editor)
    assert (x, y) == pytest.approx((0.25, 0.75), abs=1e-3)
    assert (x, y) != (round(x, 4), round(y, 4))
    assert crosshair(editor) == pytest.approx(point(box, x, y), abs=1.5)

    page.mouse.move(*point(box, 0.25, 0.75))
    page.mouse.down()
    page.mouse.move(*point(box, 0.4, 0.6))
    page.mouse.move(*point(box, 0.6, -0.5))  # beyond the upper edge
    page.mouse.up()
    x, y = target(editor)
    assert (x, y) == (pytest.approx(0.6, abs=1e-3), 0)
    assert editor.run("[...app.graph.nodes.find(n => n.type === 'CoZChainLoop').pos]") == before

    page.mouse.click(*point(box, 0.3, 0.6))
    x, y = target(editor)
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    moved = target(editor)
    assert moved == [x + 1 / 1000 + 1 / 1000, y + 10 / 872 - 1 / 872]
    assert labels(editor) == ["1x", "2x", "4x"]
    editor.screenshot(f"picker-{renderer}")

    outputs = run_it(editor)
    (record,) = (out["coz_chain"][0] for out in outputs.values() if "coz_chain" in out)
    assert json.loads(record)["target"] == moved
    first = place_first_frame(872, 1000, 64, "native pixels", Target(*moved))
    assert json.loads(record)["windows"][0] == list(first.window)
    assert wait_for_picture(editor, 1000, 872)

    scale = editor.run("app.canvas.ds.scale")
    page.mouse.move(*point(wait_for_picture(editor, 1000, 872), 0.5, 0.5))
    page.mouse.wheel(0, -100)
    page.wait_for_function("scale => app.canvas.ds.scale > scale", arg=scale)


TRACKER = "app.extensionManager.workflow.activeWorkflow.changeTracker"
# As long as a hand does. The newest frontend counts what changes within 50 ms of a kept state as
# a part of it (squashState).
HELD = 200  # milliseconds


def undone(editor, x):
    """What the target's x is after as few undos as move it away from x.

    More than one where the frontend kept a state between: it loads a node with a dynamic combo
    at its least height, and keeps that as a change at the next key let go.
    """
    for _ in range(4):
        editor.run("() => app.extensionManager.command.execute('Comfy.Undo')")
        if target(editor)[0] != x:
            break
    return target(editor)[0]


@RENDERERS
def test_the_mark_follows_typed_values_and_undo(editor, renderer):
    page = editor.page
    build(editor, renderer, chain())
    box = wait_for_picture(editor, 1000, 872)
    type_number(editor, renderer, "center_x", "0.123")
    assert target(editor)[0] == 0.123
    page.wait_for_timeout(300)
    assert crosshair(editor) == pytest.approx(point(box, 0.123, 0.5), abs=1.5)

    for pick in (
        lambda: page.mouse.click(*point(box, 0.8, 0.2), delay=HELD),
        lambda: page.keyboard.press("ArrowLeft", delay=HELD),
    ):
        kept = editor.run(f"() => {TRACKER}.undoQueue.length")
        pick()
        page.wait_for_function(f"kept => {TRACKER}.undoQueue.length > kept", arg=kept)
    nudged = target(editor)[0]
    assert nudged > 0.7
    assert nudged < undone(editor, nudged) < nudged + 0.01
    assert undone(editor, target(editor)[0]) == 0.123
    assert wait_for_picture(editor, 1000, 872)


def test_what_comes_through_another_node_is_shown_after_a_run_and_a_reload(editor):
    build(editor, "classic", chain("rocket.jpg", between="ImageInvert"))
    expect(note(editor)).to_have_text("run once to see the image")
    assert labels(editor) == []
    editor.screenshot("picker-before-classic")
    run_it(editor)
    wait_for_picture(editor, 640, 427)
    editor.page.wait_for_timeout(1500)  # the frontend keeps the workflow for the next visit
    editor.reload()
    for renderer, place in (("classic", 0.25), ("vue", 0.2)):
        editor.use_renderer(renderer)
        editor.page.wait_for_timeout(500)  # the node is drawn anew
        box = wait_for_picture(editor, 640, 427)
        editor.page.mouse.click(*point(box, place, place))
        assert target(editor) == pytest.approx([place, place], abs=3e-3)


@RENDERERS
def test_another_picture_in_load_image_is_shown_at_once(editor, renderer):
    upload(editor, "a wide [one].jpg", (60, 40))
    upload(editor, "turned.jpg", (60, 40), orientation=6)
    nodes = chain()
    nodes["source"] = {
        "type": "LoadImage",
        "values": {"image": "my pictures/a wide [one].jpg"},
    }
    build(editor, renderer, nodes)
    wait_for_picture(editor, 60, 40)
    outputs = run_it(editor)
    (source,) = (
        json.loads(out["coz_source"][0]) for out in outputs.values() if "coz_source" in out
    )
    assert (source["width"], source["height"]) == (60, 40)
    editor.run(
        """() => app.graph.nodes.find(node => node.type === 'LoadImage').widgets
            .find(w => w.name === 'image').value = 'my pictures/turned.jpg'"""
    )
    wait_for_picture(editor, 40, 60)
    outputs = run_it(editor)
    (source,) = (
        json.loads(out["coz_source"][0]) for out in outputs.values() if "coz_source" in out
    )
    assert (source["width"], source["height"]) == (40, 60)

    upload(editor, "turned.jpg", (50, 40))  # another picture of that name
    run_it(editor)
    wait_for_picture(editor, 50, 40)

    run_it(
        editor,
        then="""() => {
        app.graph.nodes.find(node => node.type === 'LoadImage').widgets
            .find(w => w.name === 'image').value = 'my pictures/a wide [one].jpg'
    }""",
    )
    wait_for_picture(editor, 60, 40)  # not what that run got


def test_a_picture_that_the_browser_cannot_show_is_shown(editor):
    upload(editor, "a.tif", (60, 40))
    nodes = chain()
    nodes["source"] = {"type": "LoadImage", "values": {"image": "my pictures/a.tif"}}
    build(editor, "classic", nodes)
    wait_for_picture(editor, 60, 40)


def test_a_run_that_ended_while_its_tab_was_away_is_shown(editor):
    """The frontend keeps what it sent under the id of the loop's child, not of the loop."""
    build(editor, "classic", chain("rocket.jpg", between="ImageInvert"))
    expect(note(editor)).to_have_text("run once to see the image")
    editor.run(
        """async () => {
            const {output, workflow} = await app.graphToPrompt()
            const queued = await app.api.fetchApi('/prompt', {method: 'POST', body: JSON.stringify(
                {prompt: output, client_id: 'away', extra_data: {extra_pnginfo: {workflow}}})})
            const {prompt_id} = await queued.json()
            for (let ended; !ended; await new Promise(done => setTimeout(done, 100)))
                ended = (await (await app.api.fetchApi(`/history/${prompt_id}`)).json())[prompt_id]
            await app.loadGraphData(workflow)  // as the tab does
        }"""
    )
    wait_for_picture(editor, 640, 427)


@RENDERERS
def test_a_linked_target_is_shown_and_never_written(editor, renderer):
    nodes = {
        "source": {"type": "CoZSamplePicture", "values": {"picture": "coffee.png"}},
        "number": {"type": "PrimitiveFloat", "values": {"value": 0.25}},
        "crop": {
            "type": "CoZCropCenterZoom",
            "links": {"image": ["source", 0], "center_x": ["number", 0]},
        },
        "shown": {"type": "PreviewImage", "links": {"images": ["crop", 0]}},
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
    editor.screenshot(f"picker-linked-{renderer}")
    editor.run(
        """() => {
            const mask = LiteGraph.createNode('SolidMask')
            app.graph.add(mask)
            const crop = app.graph.nodes.find(node => node.type === 'CoZCropCenterZoom')
            mask.connect(0, crop, crop.findInputSlot('mask'))
        }"""
    )
    expect(note(editor)).to_have_text(MASK_NOTE)


def loop_inputs(editor):
    """What the prompt gives the one Chain Loop."""
    (loop,) = (node for node in editor.prompt().values() if node["class_type"] == LOOP)
    return loop["inputs"]


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
    box = wait_for_picture(editor, 640, 427)
    editor.page.mouse.click(*point(box, 0.7, 0.3))
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
    for i, (mask, invert, comes) in enumerate(
        [
            (always, always, True),
            (always, muted, False),
            (always, bypassed, True),
            (muted, bypassed, False),
            (bypassed, bypassed, False),
        ]
    ):
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
        picked = pytest.approx([place, place], abs=3e-3)
        assert target(editor) == (before if comes else picked)
        assert ("mask" in loop_inputs(editor)) == comes


def test_a_number_that_does_not_come_leaves_the_target_free(editor):
    number = {"type": "PrimitiveFloat", "values": {"value": 0.25}}
    nodes = {"number": number, **chain("rocket.jpg")}
    nodes["loop"]["links"]["center_x"] = ["number", 0]
    build(editor, "classic", nodes)
    expect(note(editor)).to_have_text("a link sets the target")
    editor.run("() => { app.graph.nodes.find(n => n.type === 'PrimitiveFloat').mode = 2 }")
    expect(note(editor)).to_have_text("click where to zoom")
    editor.page.mouse.click(*point(wait_for_picture(editor, 640, 427), 0.3, 0.6))
    assert target(editor) == pytest.approx([0.3, 0.6], abs=3e-3)
    inputs = loop_inputs(editor)
    assert [inputs["center_x"], inputs["center_y"]] == target(editor)


def test_what_is_held_is_written_before_another_key_or_not_at_all(editor):
    build(editor, "classic", chain("rocket.jpg"))
    editor.page.mouse.click(*point(wait_for_picture(editor, 640, 427), 0.5, 0.5))
    x, y = target(editor)
    editor.page.keyboard.down("ArrowLeft")
    assert target(editor) == [x, y]
    editor.page.keyboard.down("Control")  # and Enter, which runs
    assert target(editor) == [x - 1 / 640, y]
    editor.page.keyboard.up("Control")
    editor.page.keyboard.up("ArrowLeft")
    editor.page.keyboard.down("ArrowUp")
    editor.run(
        """() => {
            const number = LiteGraph.createNode('PrimitiveFloat')
            app.graph.add(number)
            const loop = app.graph.nodes.find(node => node.type === 'CoZChainLoop')
            number.connect(0, loop, loop.findInputSlot('center_x'))
        }"""
    )
    editor.page.keyboard.up("ArrowUp")
    assert target(editor) == [x - 1 / 640, y]
    expect(note(editor)).to_have_text("a link sets the target")


@RENDERERS
def test_a_pinch_moves_no_target(editor, renderer):
    build(editor, renderer, chain("rocket.jpg"))
    box = wait_for_picture(editor, 640, 427)
    session = editor.page.context.new_cdp_session(editor.page)

    def touch(kind, *places):
        points = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(places)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    first, second = point(box, 0.3, 0.3), point(box, 0.7, 0.7)
    before = target(editor)
    touch("touchStart", first)
    touch("touchStart", first, second)
    touch("touchMove", point(box, 0.25, 0.25), point(box, 0.75, 0.75))
    touch("touchEnd", point(box, 0.25, 0.25))
    touch("touchEnd")
    assert target(editor) == before
    touch("touchStart", point(wait_for_picture(editor, 640, 427), 0.3, 0.3))  # the graph is larger
    touch("touchEnd")
    assert target(editor) == pytest.approx([0.3, 0.3], abs=3e-3)


@RENDERERS
def test_workflows_and_prompts_hold_nothing_of_the_picker(editor, renderer):
    editor.use_renderer(renderer)
    editor.show_nodes(["CoZCropCenterZoom", "CoZFitImage", LOOP])
    editor.page.locator(PICKER).nth(2).wait_for()
    saved = editor.run("() => app.graph.serialize().nodes.map(node => node.widgets_values)")
    assert saved[0] == [4, 0.5, 0.5, "bicubic"]
    assert saved[1] == ["native pixels", 512, 0.5, 0.5]
    names = editor.run("() => app.graph.nodes[2].widgets.map(widget => widget.name)")
    assert names[-1] == "target"
    assert len(saved[2]) == len(names) - 1
    assert all("target" not in node["inputs"] for node in editor.prompt().values())


def test_it_looks_at_the_graph_only_while_it_is_seen_and_then_seldom(editor):
    """A copied node is a clone that never comes into a graph, and so is never removed from one."""
    editor.reload()  # the timer of one module serves all pickers
    editor.run(
        """() => {
            const {setInterval, clearInterval} = window
            window.timers = new Map()
            window.setInterval = (act, period, ...values) => {
                const timer = setInterval(act, period, ...values)
                if (new Error().stack.includes('/picker/watch.js')) window.timers.set(timer, period)
                return timer
            }
            window.clearInterval = timer => { clearInterval(timer); window.timers.delete(timer) }
        }"""
    )
    count = "count => window.timers.size === count"
    nodes = chain()
    nodes["second"] = {"type": "CoZFitImage", "links": {"image": ["source", 0]}}
    build(editor, "classic", nodes)
    editor.page.locator(PICKER).nth(1).wait_for()
    editor.page.wait_for_function(count, arg=1)
    assert editor.run("[...window.timers.values()]") == [1000]
    editor.run("() => { app.canvas.copyToClipboard(app.graph.nodes) }")
    editor.page.wait_for_timeout(300)
    assert editor.run("window.timers.size") == 1
    editor.run("() => { app.canvas.ds.offset = [-9000, 0]; app.canvas.setDirty(true, true) }")
    editor.page.wait_for_function(count, arg=0)
    editor.run("() => { app.canvas.ds.offset = [80, 130]; app.canvas.setDirty(true, true) }")
    editor.page.wait_for_function(count, arg=1)
    editor.run("() => app.graph.clear()")
    editor.page.wait_for_function(count, arg=0)


def test_a_viewer_in_a_subgraph_aims_the_loop_outside_and_undo_takes_that_back(editor):
    nodes = chain()
    nodes["shown"] = {"type": "CoZZoomViewer", "links": {"chain": ["loop", 3]}}
    build(editor, "classic", nodes)
    editor.run(
        """async () => {
            const {findFeeder, setTarget} = await import('/extensions/chain-of-zoom/host/graph.js')
            const viewer = app.graph.nodes.find(node => node.type === 'CoZZoomViewer')
            const {subgraph} = app.graph.convertToSubgraph(new Set([viewer]))
            setTarget(findFeeder(subgraph.nodes[0], 'chain'), {x: 0.25, y: 1})
        }"""
    )
    assert target(editor) == [0.25, 1]
    assert undone(editor, 0.25) == 0.5
    assert editor.run("app.graph.nodes.some(node => node.isSubgraphNode())")
