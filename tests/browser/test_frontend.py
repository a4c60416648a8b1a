import json

import pytest
import requests

from tools.host import ROOT
from tools.host.workflow import FIRST_TEMPLATE, WORKFLOWS, read_prompt

from .conftest import each_renderer
from .picker import run_it

STEPS = 2
FRAME = [451, 300]
CONTROLS = {"fixed", "control_after_generate"}  # the frontends name the seed's control differently

WATCH = """() => {
    const seen = window.seen = {progress: [], shown: [], end: null}
    const add = (list, value) => { if (list.at(-1) !== value) list.push(value) }
    for (const end of ['execution_success', 'execution_error', 'execution_interrupted'])
        app.api.addEventListener(end, () => { seen.end = end }, {once: true})
    const look = () => {
        const loop = app.graph.nodes.find(node => node.type === 'CoZChainLoop')
        if (loop.progress) add(seen.progress, loop.progress)
        if (loop.imgs?.length) add(seen.shown, loop.imgs.map(image => image.src).join())
        if (!seen.end) requestAnimationFrame(look)
    }
    look()
}"""


def open_template(editor, path=FIRST_TEMPLATE):
    """As a workflow with an id of its own: by it the viewer and the picker find its runs."""
    page = editor.page
    before = editor.run("app.graph.id")
    workflow = json.loads(path.read_text("utf-8"))
    if path.parent.name == "workflows":
        page.get_by_role("button", name="Templates").click()
        page.get_by_role("dialog").get_by_text("chain-of-zoom", exact=True).click()
        page.get_by_test_id(f"template-workflow-{path.stem}").click()
        page.get_by_role("dialog").wait_for(state="hidden")
    else:  # the template browser does not list it
        editor.run(
            """([workflow, name]) =>
                app.loadGraphData(workflow, true, true, name, {openSource: 'template'})""",
            [workflow, path.stem],
        )
    page.wait_for_function(
        """([before, count]) => app.graph.id !== before && app.graph.nodes.length === count
            // the tab opens after the graph has been built
            && app.extensionManager.workflow.activeWorkflow.activeState?.id === app.graph.id""",
        arg=[before, len(workflow["nodes"])],
    )


def wait_for_pictures(editor, node_type, sizes):
    """Until the node shows pictures of these sizes, [width, height] each."""
    editor.page.wait_for_function(
        """([type, sizes]) => String(app.graph.nodes.find(node => node.type === type).imgs
            ?.map(image => [image.naturalWidth, image.naturalHeight])) === String(sizes)""",
        arg=[node_type, sizes],
    )


def test_template_runs_as_it_is(editor):
    open_template(editor)
    page = editor.page
    editor.run(WATCH)
    page.get_by_test_id("queue-button").click()
    page.wait_for_function("window.seen.end")
    seen = editor.run("window.seen")

    assert seen["end"] == "execution_success"
    wait_for_pictures(editor, "CoZChainLoop", [FRAME] * (STEPS + 1))
    # Dialogs about missing files would have come while it ran.
    assert page.get_by_role("dialog").count() == 0
    assert page.get_by_test_id("error-overlay").count() == 0
    # Each finished scale appears at once, and the bar of the loop never goes back.
    live = [sources for sources in seen["shown"] if "," not in sources]
    assert len(set(live)) >= STEPS - 1
    assert seen["progress"] == sorted(seen["progress"])
    assert {round(value, 3) for value in seen["progress"]} <= {0.333, 0.667, 1}
    assert len(seen["progress"]) >= STEPS - 1


OWN_CHECKPOINT = {"backbone.adaptive": False, "backbone.denoise_steps": ""}
OWN_CHECKPOINT |= {"backbone.control_strength": 0.6, "backbone.control_end": 1}
OWN_CHECKPOINT |= {"backbone.control_hint": "zoomed view"}
"""Inputs that the option "any checkpoint" got later: they lie before other saved values."""


LATER = ["from_step", "consistency", "weight", "start_here", "adaptive", "control"]


@pytest.mark.parametrize("name", LATER)
def test_a_workflow_of_before_means_the_same(editor, name):
    """Saved before nodes had the inputs that it is named for: they come with their defaults."""
    path = ROOT / "tests" / "data" / "workflows" / f"before_{name}.json"
    editor.use_renderer("classic")
    editor.run("workflow => app.loadGraphData(workflow)", json.loads(path.read_text("utf-8")))
    expected = read_prompt(path)
    defaults = {
        "CoZChainLoop": {"from_step": 16, "consistency": 0, "stop_below": 0},
        "CoZColorFix": {"weight": 0.5},
    }
    for node in expected.values():
        node["inputs"] |= defaults.get(node["class_type"], {})
        if "backbone.denoise" in node["inputs"]:
            node["inputs"] = OWN_CHECKPOINT | node["inputs"]
    assert editor.prompt() == expected


def test_missing_models_are_named_with_what_to_do(editor):
    editor.use_renderer("classic")
    open_template(editor, next(path for path in WORKFLOWS if path.stem.startswith("2 ")))
    editor.page.get_by_test_id("error-overlay").wait_for()
    missing = editor.run(
        """() => app.graph.nodes.flatMap(node => node.properties.models ?? [])
            .map(({name, directory}) => `${directory}/${name}`)"""
    )
    assert missing == [
        "checkpoints/sd3_medium_incl_clips_t5xxlfp8.safetensors",
        "loras/model_20001.pkl",
        "vae/vae_encoder_20001.pt",
    ]


@pytest.mark.parametrize("option", [0, 1, 2])
@each_renderer
def test_every_node_is_saved_and_loaded(editor, renderer, option):
    editor.use_renderer(renderer)
    info = requests.get(f"{editor.url}/object_info").json().items()
    types = sorted(name for name, node in info if "chain-of-zoom" in node["python_module"])
    editor.show_nodes(types)
    # An option of a combo may bring widgets of its own, so the combos are set first.
    before = editor.run(
        """option => app.graph.nodes.map(node => {
            for (const combos of [true, false])
                for (const widget of [...node.widgets ?? []]) {
                    const {values, max, step2} = widget.options
                    if (!values === combos) continue
                    if (values) widget.value = values[option] ?? [...values].at(-1)
                    else if (typeof widget.value === 'number')
                        widget.value = Math.min(widget.value + step2, max)
                    else widget.value = `${widget.name}\\nof ${node.type}`
                }
            return (node.widgets ?? []).filter(widget => widget.serialize !== false)
                .map(widget => [widget.name, widget.value])
        })""",
        option,
    )
    after = editor.run(
        """async () => {
            await app.loadGraphData(JSON.parse(JSON.stringify(app.graph.serialize())))
            return app.graph.nodes.map(node =>
                (node.widgets ?? []).filter(widget => widget.serialize !== false)
                    .map(widget => [widget.name, widget.value]))
        }"""
    )
    if renderer == "vue":
        are_drawn = "count => document.querySelectorAll('[data-node-id]').length === count"
        editor.page.wait_for_function(are_drawn, arg=len(types))
    assert after == before
    prompt = list(editor.prompt().values())
    assert [node["class_type"] for node in prompt] == types
    for node, widgets in zip(prompt, after, strict=True):
        unset = ("own_picture", "none")  # left out, as in prompts from before that input
        given = {name: v for name, v in widgets if name not in CONTROLS and (name, v) != unset}
        assert node["inputs"] == given


def test_help_opens(editor):
    editor.use_renderer("classic")
    editor.show_nodes(["CoZChainLoop"])
    editor.run("() => app.canvas.selectNode(app.graph.nodes[0])")
    editor.page.get_by_test_id("info-button").click()
    editor.page.locator(".node-help-content").get_by_text(
        "Detail finer than the pixels of the photograph"
    ).wait_for()


def test_blueprint_is_listed_and_runs(editor):
    listed = requests.get(f"{editor.url}/global_subgraphs").json()
    (key,) = (key for key, entry in listed.items() if entry["name"] == "Chain-of-Zoom")
    blueprint = requests.get(f"{editor.url}/global_subgraphs/{key}").json()["data"]
    editor.use_renderer("classic")
    editor.run(
        """async ([blueprint, steps]) => {
            await app.loadGraphData(JSON.parse(blueprint))
            const [zoom] = app.graph.nodes
            zoom.widgets.find(widget => widget.name === 'steps').value = steps
            const add = type => {
                const node = LiteGraph.createNode(type)
                app.graph.add(node)
                return node
            }
            add('CoZSamplePicture').connect(0, zoom, 0)
            zoom.connect(0, add('PreviewImage'), 0)
        }""",
        [blueprint, 2],
    )
    (record,) = (ui["coz_chain"][0] for ui in run_it(editor).values() if "coz_chain" in ui)
    assert json.loads(record)["steps"] == 2
