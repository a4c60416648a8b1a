"""CoZ Sample Picture on the page: its picture, its samples' names, and a file of the user's."""

import base64
import io

import pytest
from PIL import Image

from .conftest import RENDERERS
from .picker import LOOP, build, choose, make

GRAPH = {
    "picture": make("CoZSamplePicture", {"picture": "chelsea.png"}),
    "loop": make(LOOP, image=["picture", 0]),
}

# A file let go over the node, as the browser reports it.
DROP = """async ([selector, name, type, content]) => {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0))
    const dataTransfer = new DataTransfer()
    dataTransfer.items.add(new File([bytes], name, {type}))
    const {x, y, width, height} = document.querySelector(selector).getBoundingClientRect()
    const place = {clientX: x + width / 2, clientY: y + height / 2, bubbles: true, cancelable: true, composed: true}
    const target = document.elementFromPoint(place.clientX, place.clientY)
    for (const event of ['dragenter', 'dragover', 'drop']) {
        target.dispatchEvent(new DragEvent(event, {...place, dataTransfer}))
        await new Promise(requestAnimationFrame)
        await new Promise(requestAnimationFrame)
    }
}"""

OWN = "app.graph.nodes[0].widgets.find(({name}) => name === 'own_picture').value"


def png(color):
    file = io.BytesIO()
    Image.new("RGB", (64, 48), color).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def wait_for_size(editor, selector, width):
    is_wide = "([selector, width]) => document.querySelector(selector)?.naturalWidth === width"
    editor.page.wait_for_function(is_wide, arg=[selector, width])


@pytest.fixture(params=RENDERERS)
def graph(request, editor):
    build(editor, request.param, GRAPH)
    wait_for_size(editor, ".coz-sample img", 451)
    return editor


@pytest.mark.parametrize("place", [".coz-sample", ".coz-picker"])
def test_a_dropped_picture_is_used_and_shown(graph, place):
    """Let go over the small picture, or over the large one that is made of it."""
    before = graph.prompt()
    graph.run(DROP, [place, "cat.png", "image/png", png("red")])
    graph.page.wait_for_function(f"{OWN} !== 'none'")
    name = graph.run(f"() => {OWN}")
    assert name.startswith("cat")
    for selector in (".coz-sample img", ".coz-picker img"):
        wait_for_size(graph, selector, 64)
    assert graph.prompt()["1"]["inputs"] == {"picture": "chelsea.png", "own_picture": name}
    assert before["1"]["inputs"] == {"picture": "chelsea.png"}
    assert graph.run("() => app.graph.nodes.length") == 2  # the page made no Load Image of it

    choose(graph, "picture", "rocket.jpg")
    assert graph.prompt()["1"]["inputs"] == {"picture": "rocket.jpg"}


def test_what_is_no_picture_is_refused(graph):
    graph.run(DROP, [".coz-sample", "notes.txt", "text/plain", base64.b64encode(b"words").decode()])
    graph.page.get_by_text("notes.txt is not an image").first.wait_for()
    assert graph.run(f"() => {OWN}") == "none"


def test_the_picture_stays_when_the_graph_is_small(graph):
    graph.run("() => { app.canvas.ds.scale = 0.3; app.canvas.setDirty(true, true) }")
    graph.page.wait_for_function("app.canvas.low_quality || LiteGraph.vueNodesMode")
    graph.settle()
    assert graph.page.locator(".coz-picker").is_visible()
    assert graph.page.locator(".coz-sample").is_visible()


def test_samples_are_named_by_what_they_show(graph):
    labels = graph.run(
        """() => {
            const {options} = app.graph.nodes[0].widgets.find(({name}) => name === 'picture')
            return options.values.map(name => options.getOptionLabel(name))
        }"""
    )
    assert labels == ["Astronaut", "Cat", "Coffee", "Galaxies", "Rocket"]
