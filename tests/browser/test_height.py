"""The height of a node after undo."""

import json

from .picker import (
    FOUR_STEPS,
    LOOP,
    UNDO_QUEUE,
    node,
    point,
    run_it,
    set_values,
    target,
    wait_for_picture,
)


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
