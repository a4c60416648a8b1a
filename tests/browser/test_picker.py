"""The target picker: the windows drawn on the picture, what a pick writes, when it looks."""

import json

import pytest
from playwright.sync_api import expect

from coz.geometry import Target, place_first_frame

from .conftest import each_renderer
from .picker import (
    LOOP,
    PICKER,
    UNDO_QUEUE,
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
    type_number,
    undone,
    wait_for_picture,
)


@each_renderer
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

    (record,) = (out["coz_chain"][0] for out in run_it(editor).values() if "coz_chain" in out)
    assert json.loads(record)["target"] == moved
    first = place_first_frame(872, 1000, 64, "native pixels", Target(*moved))
    assert json.loads(record)["windows"][0] == list(first.window)
    assert wait_for_picture(editor, 1000, 872)

    scale = editor.run("app.canvas.ds.scale")
    page.mouse.move(*point(wait_for_picture(editor, 1000, 872), 0.5, 0.5))
    page.mouse.wheel(0, -100)
    page.wait_for_function("scale => app.canvas.ds.scale > scale", arg=scale)


# As long as a hand does. The newest frontend counts what changes within 50 ms of a kept state as
# a part of it (squashState).
HELD = 200  # milliseconds


@each_renderer
def test_the_mark_follows_typed_values_and_undo(editor, renderer):
    page = editor.page
    build(editor, renderer, chain())
    box = wait_for_picture(editor, 1000, 872)
    before = crosshair(editor)
    type_number(editor, renderer, "center_x", "0.1234")
    assert target(editor)[0] == 0.1234
    assert loop_inputs(editor)["center_x"] == 0.1234
    for _ in range(50):
        if crosshair(editor) != before:
            break
        editor.settle()
    assert crosshair(editor) == pytest.approx(point(box, 0.1234, 0.5), abs=1.5)

    for pick in (
        lambda: page.mouse.click(*point(box, 0.8, 0.2), delay=HELD),
        lambda: page.keyboard.press("ArrowLeft", delay=HELD),
    ):
        kept = editor.run(f"() => {UNDO_QUEUE}.length")
        pick()
        page.wait_for_function(f"kept => {UNDO_QUEUE}.length > kept", arg=kept)
    nudged = target(editor)[0]
    assert nudged > 0.7
    assert nudged < undone(editor, nudged) < nudged + 0.01
    assert undone(editor, target(editor)[0]) == 0.1234
    assert wait_for_picture(editor, 1000, 872)


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
    feed(editor, "PrimitiveFloat", LOOP, "center_x")
    editor.page.keyboard.up("ArrowUp")
    assert target(editor) == [x - 1 / 640, y]
    expect(note(editor)).to_have_text("a link sets the target")


@each_renderer
def test_a_pinch_moves_no_target(editor, renderer):
    build(editor, renderer, chain("rocket.jpg"))
    box = wait_for_picture(editor, 640, 427)
    first, second = point(box, 0.3, 0.3), point(box, 0.7, 0.7)
    touch, before = editor.touch, target(editor)
    touch("touchStart", first)
    touch("touchStart", first, second)
    touch("touchMove", point(box, 0.25, 0.25), point(box, 0.75, 0.75))
    touch("touchEnd", point(box, 0.25, 0.25))
    touch("touchEnd")
    assert target(editor) == before
    touch("touchStart", point(wait_for_picture(editor, 640, 427), 0.3, 0.3))  # the graph is larger
    touch("touchEnd")
    assert target(editor) == pytest.approx([0.3, 0.3], abs=3e-3)


def test_it_looks_at_the_graph_only_while_it_is_seen_and_then_seldom(editor):
    """A copied node is a clone that never comes into a graph, and so is never removed from one."""
    editor.show_nodes([])  # the timer of one module serves all pickers
    editor.settle(20)
    editor.run(
        """() => {
            const {setInterval, clearInterval} = window
            window.stopCounting = () => Object.assign(window, {setInterval, clearInterval})
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
    build(editor, "classic", chain() | {"second": make("CoZFitImage", image=["source", 0])})
    editor.page.locator(PICKER).nth(1).wait_for()
    editor.page.wait_for_function(count, arg=1)
    assert editor.run("[...window.timers.values()]") == [1000]
    editor.run("() => { app.canvas.copyToClipboard(app.graph.nodes) }")
    editor.settle()
    assert editor.run("window.timers.size") == 1
    editor.run("() => { app.canvas.ds.offset = [-9000, 0]; app.canvas.setDirty(true, true) }")
    editor.page.wait_for_function(count, arg=0)
    editor.run("() => { app.canvas.ds.offset = [80, 130]; app.canvas.setDirty(true, true) }")
    editor.page.wait_for_function(count, arg=1)
    editor.run("() => app.graph.clear()")
    editor.page.wait_for_function(count, arg=0)
    editor.run("stopCounting()")


def test_a_removed_node_is_observed_no_longer(editor):
    editor.run(
        """() => {
            window.observed = new Set()
            for (const name of ['ResizeObserver', 'IntersectionObserver']) {
                const {observe, disconnect} = window[name].prototype
                window[name].prototype.observe = function (element, ...values) {
                    if (element.classList?.contains('coz-picker')) window.observed.add(this)
                    return observe.call(this, element, ...values)
                }
                window[name].prototype.disconnect = function () {
                    window.observed.delete(this)
                    return disconnect.call(this)
                }
            }
        }"""
    )
    build(editor, "classic", chain())
    editor.page.locator(PICKER).wait_for()
    assert editor.run("window.observed.size") == 2
    editor.run("() => { app.canvas.copyToClipboard(app.graph.nodes) }")
    assert editor.run("window.observed.size") == 2
    editor.run("() => app.graph.remove(app.graph.nodes.find(n => n.type === 'CoZChainLoop'))")
    assert editor.run("window.observed.size") == 0
