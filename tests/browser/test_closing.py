"""The last lines of a run, on the node that ran: after the run, in its tab and after a reload."""

import pytest

from tools.docs.help_pictures import BUILD_GRAPH_JS, RUN_GRAPH_JS

from .picker import wire

NODES = {
    "sample": ("CoZSamplePicture", (0, 0), {"picture": "astronaut.png"}),
    "model": ("UpscaleModelLoader", (0, 140), {"model_name": "coz_lite_x4.safetensors"}),
    "loop": ("CoZChainLoop", (450, 0), {"size": 64, "steps": 4, "stop_below": 99}),
    "shown": ("PreviewImage", (900, 0), {}),
}
LINKS = [
    ("sample", 0, "loop", "image"),
    ("model", 0, "loop", "backbone.upscale_model"),
    ("loop", 0, "shown", "images"),
]
STOPPED = "stopped after step 1 of 4"

FRAME = NODES | {"frame": ("CoZFitImage", (0, 300), {"size": 32})}
FULL = FRAME | {"loop": ("CoZFullImage", (450, 0), {"tile_prompts": "one\ntwo <b>three</b>"})}
TO_FULL = [("sample", 0, "frame", "image"), ("frame", 0, "loop", "image"), *LINKS[1:]]
UNUSED = "tile_prompts has 2 lines for 1 tile: the last are not used"

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


@pytest.fixture
def graph(editor):
    yield lambda nodes, links: editor.run(BUILD_GRAPH_JS, wire(nodes, links))
    editor.use_renderer("classic")


def wait_for_text(editor, node, text):
    editor.page.wait_for_function(
        f"([id, text]) => ({TEXTS})(id).some(shown => shown.includes(text))", arg=[node, text]
    )


@pytest.mark.parametrize("renderer", ["classic", "vue"])
@pytest.mark.parametrize(
    ("nodes", "links", "sentence"),
    [(NODES, LINKS, STOPPED), (FULL, TO_FULL, UNUSED)],
    ids=["chain", "full image"],
)
def test_what_was_said_stays(editor, graph, renderer, nodes, links, sentence):
    editor.use_renderer(renderer)
    type_, place, values = nodes["loop"]
    # Another seed: else the whole run comes from the cache, and the node is not asked.
    loop = type_, place, values | {"seed": 1 if renderer == "vue" else 0}
    node = graph(nodes | {"loop": loop}, links)["loop"]
    assert editor.run(TEXTS, node) == []
    before = editor.run("id => app.graph.getNodeById(id).serialize().widgets_values", node)
    assert editor.run(RUN_GRAPH_JS)[0] == "execution_success"
    editor.page.wait_for_timeout(5000)
    (text,) = editor.run(TEXTS, node)
    assert sentence in text
    editor.run(SHOW_END, node)
    editor.page.wait_for_timeout(800)
    editor.screenshot(f"closing-{type_}-{renderer}")
    if type_ == "CoZChainLoop":  # all lines but the one that says why it stopped
        assert editor.run(DOTS, node) == ["rgb(165, 201, 58)", None, "rgb(165, 201, 58)"]
    box = editor.run(BOX, node)
    assert box["seen"]
    assert box["hidden"] <= 1
    assert editor.run("id => app.graph.getNodeById(id).serialize().widgets_values", node) == before
    # It is no input: the side panel lists it neither by its name nor by its words.
    panel = editor.page.get_by_test_id("properties-panel")
    editor.run("id => app.canvas.selectNode(app.graph.getNodeById(id))", node)
    toggle = editor.page.get_by_role("button", name="Toggle properties panel")
    toggle.click()
    panel.get_by_text("color_fix", exact=True).first.wait_for()
    editor.page.wait_for_timeout(300)
    editor.screenshot(f"closing-{type_}-{renderer}-panel")
    assert panel.get_by_text("coz_text").count() == 0
    toggle.click()

    assert editor.run(RUN_GRAPH_JS)[0] == "execution_success"  # from the cache
    assert editor.run(TEXTS, node) == [text]

    editor.run("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    editor.page.wait_for_function("app.graph.nodes.length === 0")
    editor.run("() => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    wait_for_text(editor, node, sentence)
    assert editor.run(TEXTS, node) == [text]

    editor.page.wait_for_timeout(1500)  # the frontend saves its drafts a moment later
    editor.reload()
    wait_for_text(editor, node, sentence)
    assert editor.run(TEXTS, node) == [text]
