"""A graph with the target picker in it, and what the picker shows."""

import json

import requests
from playwright.sync_api import expect

from tools.host import ROOT

FOUR_STEPS = ROOT / "tests" / "data" / "workflows" / "before_start_here.json"
"""A workflow of four steps of 4x, with a viewer."""
LOOP = "CoZChainLoop"
UNDO_QUEUE = "app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue"
PICKER = ".coz-picker"

# A graph of nodes of ``make`` by name, side by side, in view; a link is [name, slot].
BUILD = """async nodes => {
    await app.loadGraphData({version: 0.4, nodes: [], links: [], groups: [], last_node_id: 0,
        last_link_id: 0, config: {}, extra: {}})
    const made = {}
    for (const [i, [name, {type, values = {}, links = {}}]] of Object.entries(nodes).entries()) {
        const node = made[name] = LiteGraph.createNode(type)
        app.graph.add(node)
        node.pos = [i * 450, 0]
        for (const [key, value] of Object.entries(values))
            node.widgets.find(widget => widget.name === key).value = value
        for (const [input, [source, slot]] of Object.entries(links))
            made[source].connect(slot, node, node.findInputSlot(input))
    }
    app.canvas.ds.scale = 0.85
    app.canvas.ds.offset = [80, 130]
    app.canvas.setDirty(true, true)
}"""

# Until the picker has kept its place for a third of a second: the node grows with its picture.
SETTLED = """async () => {
    const place = () => JSON.stringify(document.querySelector('.coz-picker').getBoundingClientRect())
    for (let last, same = 0; same < 20;) {
        await new Promise(requestAnimationFrame)
        const now = place()
        same = now === last ? same + 1 : 0
        last = now
    }
}"""


def make(node_type, values=None, **links):
    """A node for ``build``."""
    return {"type": node_type, "values": values or {}, "links": links}


def chain(picture="hubble_deep_field.jpg", between=None, **values):
    """A short chain on the built-in model, small enough to run in a test."""
    values = {"steps": 2, "size": 64, "scale": 2, **values}
    links = {"image": ["source", 0], "backbone.upscale_model": ["model", 0]}
    nodes = {
        "source": make("CoZSamplePicture", {"picture": picture}),
        "model": make("UpscaleModelLoader", {"model_name": "coz_lite_x4.safetensors"}),
        "loop": make(LOOP, values, **links),
        "shown": make("PreviewImage", images=["loop", 0]),
    }
    if between:
        middle = make(between, image=["source", 0])
        nodes = {"source": nodes.pop("source"), "between": middle, **nodes}
        nodes["loop"]["links"]["image"] = ["between", 0]
    return nodes


def build(editor, renderer, nodes):
    editor.use_renderer(renderer)
    editor.run(BUILD, nodes)


def wait_for_picture(editor, width, height):
    """Until the picker shows a picture of that shape; the box it fills on the screen."""
    editor.page.wait_for_function(
        """([width, height]) => {
            const image = document.querySelector('.coz-picker img')
            return image?.src && !image.hidden && image.naturalWidth &&
                Math.abs(image.naturalWidth / image.naturalHeight - width / height) < 0.01
        }""",
        arg=[width, height],
    )
    editor.run(SETTLED)
    box = editor.page.locator(PICKER).bounding_box()
    scale = min(box["width"] / width, box["height"] / height)
    width, height = width * scale, height * scale
    left, top = box["x"] + (box["width"] - width) / 2, box["y"] + (box["height"] - height) / 2
    return left, top, width, height


def node(node_type):
    """The first node of a type in the graph."""
    return f"app.graph.nodes.find(({{type}}) => type === '{node_type}')"


def load_image(name):
    return make("LoadImage", {"image": name})


def set_values(editor, node_type, **values):
    editor.run(
        """([type, values]) => {
            const {widgets} = app.graph.nodes.find(node => node.type === type)
            for (const [name, value] of Object.entries(values))
                widgets.find(widget => widget.name === name).value = value
        }""",
        [node_type, values],
    )


def choose(editor, name, value):
    """Sets a widget of the first node as a person does, whose choice the page notices."""
    editor.run(
        """([name, value]) => {
            const widget = app.graph.nodes[0].widgets.find(widget => widget.name === name)
            widget.value = value
            widget.callback?.(value)
        }""",
        [name, value],
    )


def feed(editor, new_type, node_type, name):
    """Connects a new node to an input."""
    editor.run(
        """([newType, type, name]) => {
            const made = LiteGraph.createNode(newType)
            app.graph.add(made)
            const node = app.graph.nodes.find(node => node.type === type)
            made.connect(0, node, node.findInputSlot(name))
        }""",
        [new_type, node_type, name],
    )


def middle(box):
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def point(box, x, y):
    return box[0] + x * box[2], box[1] + y * box[3]


def target(editor, node_type=LOOP):
    return editor.run(
        """type => ['center_x', 'center_y'].map(name => app.graph.nodes
            .find(node => node.type === type).widgets.find(w => w.name === name).value)""",
        node_type,
    )


def crosshair(editor):
    """Middle of the crosshair on the screen."""
    middle = editor.page.wait_for_function(  # in one call: each change of the target replaces it
        f"""() => {{
            const box = document.querySelector("{PICKER} path[stroke='#ffc53d']")?.getBoundingClientRect()
            return box && [box.x + box.width / 2, box.y + box.height / 2]
        }}"""
    )
    return tuple(middle.json_value())


def labels(editor):
    return editor.page.locator(f"{PICKER} text").all_text_contents()


def note(editor):
    return editor.page.locator(f"{PICKER} div")


def run_it(editor, then=lambda: None):
    """The outputs of a run, as the server's history has them; ``then`` runs once it is queued."""
    editor.run(
        """() => {
            window.ended = window.queued = null
            app.api.addEventListener('promptQueued', () => { window.queued = true }, {once: true})
            for (const end of ['execution_success', 'execution_error'])
                app.api.addEventListener(end, ({detail}) => { window.ended = [end, detail.prompt_id] },
                    {once: true})
        }"""
    )
    editor.page.get_by_test_id("queue-button").click()
    editor.page.wait_for_function("window.queued")
    then()
    editor.page.wait_for_function("window.ended")
    end, prompt_id = editor.run("window.ended")
    assert end == "execution_success"
    while True:
        history = requests.get(f"{editor.url}/history/{prompt_id}").json()
        if history:
            return history[prompt_id]["outputs"]
        editor.page.wait_for_timeout(50)  # the page hears of the end before the history has it


def source_of(outputs):
    """What a run's picker was given."""
    (source,) = (out["coz_source"] for out in outputs.values() if "coz_source" in out)
    return json.loads(*source)


def loop_inputs(editor):
    """What the prompt gives the one Chain Loop."""
    (loop,) = (node for node in editor.prompt().values() if node["class_type"] == LOOP)
    return loop["inputs"]


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


def type_number(editor, renderer, name, text):
    page = editor.page
    if renderer == "vue":
        field = page.get_by_label(name, exact=True).get_by_role("spinbutton")
        # Something to drag the value with lies on top of the field.
        page.mouse.click(*middle(field.bounding_box()))
        expect(field).to_be_focused()
        page.keyboard.press("Control+A")
        page.keyboard.type(text)
        page.keyboard.press("Enter")
        expect(field).to_have_value(text)
        return
    x, y = editor.run(
        """name => {
            const node = app.graph.nodes.find(node => node.type === 'CoZChainLoop')
            const {scale, offset} = app.canvas.ds
            const {left, top} = app.canvas.canvas.getBoundingClientRect()
            const widget = node.widgets.find(widget => widget.name === name)
            return [left + (node.pos[0] + node.size[0] / 2 + offset[0]) * scale,
                top + (node.pos[1] + widget.last_y + 10 + offset[1]) * scale]
        }""",
        name,
    )
    page.mouse.click(x, y)
    field = page.locator(".graphdialog input")
    field.fill(text)
    field.press("Enter")
    field.wait_for(state="hidden")
