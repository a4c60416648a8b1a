"""CoZ Chain Report in the real frontend: its table on the node, run and after a reload. And the
picture on CoZ What Was Invented."""

import pytest

from coz.chain.real_pixels import pick_real_pixels_color
from tools.docs.help_pictures import BUILD_GRAPH_JS, FOCUS_NODES_JS, RUN_GRAPH_JS

from .picker import wire

NODES = {
    "sample": ("CoZSamplePicture", (0, 0), {"picture": "astronaut.png"}),
    "model": ("UpscaleModelLoader", (0, 140), {"model_name": "coz_lite_x4.safetensors"}),
    "loop": ("CoZChainLoop", (0, 280), {"size": 64, "steps": 2}),
    "report": ("CoZMeasure", (450, 0), {}),
}
LINKS = [
    ("sample", 0, "loop", "image"),
    ("model", 0, "loop", "backbone.upscale_model"),
    ("loop", 3, "report", "chain"),
    ("sample", 0, "report", "ground_truth"),
]
TABLE = """() => {
    const node = app.graph.nodes.find(({type}) => type === 'CoZMeasure')
    const root = node?.widgets.find(({name}) => name === 'report').element
    if (!root) return {cells: []}
    const rows = [...root.shadowRoot.querySelectorAll('tr')]
    return {
        heads: root.shadowRoot.querySelectorAll('th').length,
        cells: rows.map(row => [...row.cells].map(cell => cell.textContent)),
        notes: [...root.shadowRoot.querySelectorAll('p')].map(note => note.textContent),
        parts: [...root.shadowRoot.querySelectorAll('p, table')].map(part => part.tagName).join(' '),
        dots: rows.map(row => row.cells[1].firstElementChild?.style.background),
    }
}"""
NAMES = [
    "zoom", "real pixels", "its input", "the photograph", "PSNR dB", "SSIM", "sharpness",
    "colour drift",
]  # fmt: skip
COLORS = [f"rgb{pick_real_pixels_color(16.0**-k)}" for k in range(3)]


@pytest.fixture
def graph(editor):
    yield lambda nodes, links: editor.run(BUILD_GRAPH_JS, wire(nodes, links))
    editor.use_renderer("canvas")


def test_the_table_stands_on_the_node(editor, graph):
    graph(NODES, LINKS)
    assert editor.run(TABLE)["cells"] == []
    assert editor.run(RUN_GRAPH_JS)[0] == "execution_success"
    shown = editor.run(TABLE)
    assert shown["cells"][0] == NAMES
    assert [row[0] for row in shown["cells"][1:]] == ["1x", "4x", "16x"]
    assert [row[1] for row in shown["cells"][1:]] == [
        "all real", "16 x 16 real pixels", "4 x 4 real pixels"
    ]  # fmt: skip
    assert shown["dots"] == [None, *COLORS]
    assert shown["cells"][1][4:6] == [">99", "1.000"]  # the source itself
    assert shown["cells"][3][3] == "too few real pixels to compare"
    assert shown["parts"] == "P TABLE" + 7 * " P"
    assert shown["notes"][0].startswith("The deepest frame (16x) shows 4 x 4 real pixels: ")
    assert [note.split(":")[0] for note in shown["notes"][1:]] == [
        "real pixels", "its input", "the photograph", "PSNR and SSIM", "sharpness", "colour drift",
        "The ground truth reaches 1x",
    ]  # fmt: skip
    editor.use_renderer("vue")
    editor.show_all()
    editor.screenshot("report")
    assert editor.run(TABLE) == shown
    editor.use_renderer("canvas")
    editor.page.wait_for_timeout(1000)  # the frontend keeps the workflow a moment later
    editor.reload()
    editor.page.wait_for_function(f"({TABLE})().cells.length === 4")
    assert editor.run(TABLE) == shown


def test_each_of_several_chains_has_its_table(editor, graph):
    several = {
        "other": ("ImageInvert", (-450, 0), {}),
        "both": ("ImageBatch", (-450, 100), {}),
        "list": ("RebatchImages", (-450, 200), {"batch_size": 1}),
    }
    links = [
        ("sample", 0, "other", "image"),
        ("sample", 0, "both", "image1"),
        ("other", 0, "both", "image2"),
        ("both", 0, "list", "images"),
        ("list", 0, "loop", "image"),
    ]
    ids = graph(NODES | several, [*links, *LINKS[1:]])
    assert editor.run(RUN_GRAPH_JS)[0] == "execution_success"
    shown = editor.run(TABLE)
    firsts = [row[0] for row in shown["cells"]]
    assert firsts == ["zoom", "1x", "4x", "16x"] * 2
    assert shown["heads"] == 2 * len(NAMES)
    assert shown["dots"] == [None, *COLORS] * 2
    assert shown["parts"] == " ".join(["P TABLE" + 7 * " P"] * 2)
    editor.run(FOCUS_NODES_JS, [[str(ids["report"])], 100])
    editor.page.wait_for_timeout(800)
    editor.screenshot("report-list")


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_what_was_invented_shows_its_map_large_enough_to_read(editor, graph, renderer):
    editor.use_renderer(renderer)
    nodes = NODES | {"map": ("CoZDetailMap", (450, 0), {})}
    del nodes["report"]
    ids = graph(nodes, [*LINKS[:2], ("loop", 3, "map", "chain")])
    assert editor.run(RUN_GRAPH_JS)[0] == "execution_success"
    shown = editor.run("id => app.nodeOutputs[id]", ids["map"])
    assert len(shown["images"]) == 1
    assert shown["coz_text"][0].startswith("The deepest frame (16x) shows 4 x 4 real pixels: ")
    node = "app.graph.getNodeById(id)"
    editor.page.wait_for_function(f"id => {node}.imgs?.[0]?.naturalWidth === 532", arg=ids["map"])
    width, height = editor.run(f"id => [...{node}.size]", ids["map"])
    assert width >= 380
    assert height >= 800
    editor.run(FOCUS_NODES_JS, [[str(ids["map"])], 100])
    editor.page.wait_for_timeout(800)
    editor.screenshot(f"map-{renderer}")
