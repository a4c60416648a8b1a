"""The last lines of a run, on the node that ran: after the run and in its tab.

test_reload.py has them after a reload.
"""

import pytest

from .conftest import each_renderer
from .picker import build, chain, make, node, run_it, set_values

STOPPED = "stopped after step 1 of 4"
UNUSED = "tile_prompts has 2 lines for 1 tile: the extra lines are not used"
CHAIN = chain("astronaut.png", size=64, steps=4, scale=4, stop_below=99)
LINKS = {"image": ["frame", 0], "backbone.upscale_model": ["model", 0]}
FULL = CHAIN | {
    "frame": make("CoZFitImage", {"size": 32}, image=["source", 0]),
    "loop": make("CoZFullImage", {"tile_prompts": "one\ntwo <b>three</b>"}, **LINKS),
}
ORDER = ["source", "model", "frame", "loop", "shown"]

# All texts of a run that the page shows on a node, the host's own included.
TEXTS = """id => {
    const node = app.graph.getNodeById(id)
    return (node?.widgets ?? [])
        .filter(({name}) => ['coz_text', '$$node-text-preview'].includes(name))
        .flatMap(({element, value}) => element?.shadowRoot
            ? [...element.shadowRoot.querySelectorAll('div')].map(
                part => [...part.children].map(line => line.textContent).join('\\n'))
            : [`progress: ${value}`])
}"""
# Of each line, the colour of its dot.
DOTS = """id => {
    const {element} = app.graph.getNodeById(id).widgets.find(({name}) => name === 'coz_text')
    return [...element.shadowRoot.querySelectorAll('span')].map(span =>
        span.className === 'dotted' ? getComputedStyle(span, '::before').backgroundColor : null)
}"""
# Of the text's box: whether it is seen, and how much of it is cut off.
BOX = """id => {
    const node = app.graph.getNodeById(id)
    const {element} = node.widgets.find(({name}) => name === 'coz_text')
    const {width, height} = element.getBoundingClientRect()
    return {seen: element.checkVisibility() && width > 100 && height > 20,
        hidden: element.scrollHeight - element.clientHeight,
        size: [...node.size]}
}"""
# Brings the lower end of a node into view.
SHOW_END = """id => {
    const {pos, size} = app.graph.getNodeById(id)
    app.canvas.ds.scale = 1
    app.canvas.ds.offset = [300 - pos[0], 840 - pos[1] - size[1]]
    app.canvas.setDirty(true, true)
}"""


def wait_for_text(editor, node, text):
    shows = f"([id, text]) => ({TEXTS})(id).some(shown => shown.includes(text))"
    editor.page.wait_for_function(shows, arg=[node, text])


@each_renderer
@pytest.mark.parametrize(
    ("nodes", "sentence"), [(CHAIN, STOPPED), (FULL, UNUSED)], ids=["chain", "full image"]
)
def test_what_was_said_stays(editor, renderer, nodes, sentence):
    kind = nodes["loop"]["type"]
    build(editor, renderer, {name: nodes[name] for name in ORDER if name in nodes})
    # Another seed: else the whole run comes from the cache, and the node is not asked.
    set_values(editor, kind, seed=1 if renderer == "vue" else 0)
    loop = editor.run(f"{node(kind)}.id")
    assert editor.run(TEXTS, loop) == []
    saved = f"{node(kind)}.serialize().widgets_values"
    before = editor.run(saved)
    run_it(editor)
    wait_for_text(editor, loop, sentence)
    editor.settle(60)  # the frontend takes its own text away a moment later
    (text,) = editor.run(TEXTS, loop)
    assert sentence in text
    editor.run(SHOW_END, loop)
    editor.settle()
    if nodes is CHAIN:  # all lines but the one that says why it stopped
        assert editor.run(DOTS, loop) == ["rgb(165, 201, 58)", None, "rgb(165, 201, 58)"]
    box = editor.run(BOX, loop)
    assert box["seen"]
    assert box["hidden"] <= 1
    assert editor.run(saved) == before
    if nodes is FULL:
        return  # the rest is the same for all nodes
    # It is no input: the side panel lists it neither by its name nor by its words.
    panel = editor.page.get_by_test_id("properties-panel")
    editor.run(f"app.canvas.selectNode({node(kind)})")
    editor.use_side_panel(True)
    panel.get_by_text("color_fix", exact=True).first.wait_for()
    editor.settle()
    assert panel.get_by_text("coz_text").count() == 0
    editor.use_side_panel(False)

    run_it(editor)  # from the cache
    assert editor.run(TEXTS, loop) == [text]

    editor.run("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    editor.page.wait_for_function("app.graph.nodes.length === 0")
    editor.run("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    wait_for_text(editor, loop, sentence)
    assert editor.run(TEXTS, loop) == [text]
