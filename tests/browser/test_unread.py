"""Chain Loop and Full-Image SR show what the chosen backbone and prompting read, and lose nothing."""

import json

import pytest

from .conftest import RENDERERS, each_renderer
from .picker import LOOP, build, choose

TEXTS = ["prompting", "prompt", "step_prompts", "seed"]
ALL = [*TEXTS, "steps", "color_fix"]

# Which of some widgets of the first node are on the screen, as the renderer has it.
SEEN = """names => {
    const node = app.graph.nodes[0]
    const {widgets} = node
    const drawn = LiteGraph.vueNodesMode
        ? document.querySelector(`[data-node-id="${node.id}"]`).innerText + [...document.querySelectorAll(
            `[data-node-id="${node.id}"] textarea`)].map(each => each.placeholder + each.parentElement.innerText)
        : node.getLayoutWidgets().map(({name}) => name).join()
    return names.filter(name => new RegExp(`\\\\b${name}\\\\b`).test(drawn))
}"""


@pytest.fixture(params=RENDERERS)
def loop(request, editor):
    build(editor, request.param, {"loop": {"type": LOOP}})
    return editor


def wait_until_seen(editor, names):
    are_seen = f"([all, names]) => String(({SEEN})(all)) === String(names)"
    editor.page.wait_for_function(are_seen, arg=[ALL, names])


def test_only_what_is_read_is_seen(loop):
    wait_until_seen(loop, ["steps", "color_fix"])
    choose(loop, "backbone", "one-step diffusion")
    wait_until_seen(loop, ["prompting", "prompt", "step_prompts", "steps", "color_fix"])
    choose(loop, "backbone", "any checkpoint")
    wait_until_seen(loop, ALL)
    choose(loop, "backbone", "upscale model")
    wait_until_seen(loop, ["steps", "color_fix"])
    choose(loop, "prompting", "vision-language model")
    wait_until_seen(loop, ALL)


def test_values_and_prompt_stay_when_the_backbone_goes_and_returns(loop):
    for name, value in (("prompt", "an eye"), ("step_prompts", "a\nb"), ("seed", 7)):
        choose(loop, name, value)
    wait_until_seen(loop, ["steps", "color_fix"])
    before, saved = loop.prompt(), loop.run("() => app.graph.serialize().nodes[0].widgets_values")
    choose(loop, "backbone", "any checkpoint")
    wait_until_seen(loop, ALL)
    choose(loop, "backbone", "upscale model")
    wait_until_seen(loop, ["steps", "color_fix"])
    assert loop.prompt() == before
    assert loop.run("() => app.graph.serialize().nodes[0].widgets_values") == saved
    assert {"an eye", "a\nb", 7} <= {value for value in saved if not isinstance(value, dict)}


def test_a_linked_input_is_seen(loop):
    wait_until_seen(loop, ["steps", "color_fix"])
    loop.run(
        """() => {
            const text = LiteGraph.createNode('PrimitiveStringMultiline'), [node] = app.graph.nodes
            app.graph.add(text)
            text.connect(0, node, node.findInputSlot('prompt'))
        }"""
    )
    wait_until_seen(loop, ["prompt", "steps", "color_fix"])


@each_renderer
def test_a_saved_height_stays_whatever_is_hidden(editor, renderer):
    build(editor, renderer, {"loop": {"type": LOOP}})
    choose(editor, "backbone", "any checkpoint")
    wait_until_seen(editor, ALL)
    editor.settle(30)  # the node takes its height
    saved = editor.run("() => JSON.stringify(app.graph.serialize())")
    for _ in range(2):
        editor.run("workflow => app.loadGraphData(workflow)", json.loads(saved))
        wait_until_seen(editor, ALL)
        editor.settle(30)
        height = editor.run("() => app.graph.nodes[0].size[1]")
        assert height == pytest.approx(json.loads(saved)["nodes"][0]["size"][1], abs=30)
