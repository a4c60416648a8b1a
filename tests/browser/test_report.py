"""CoZ Chain Report in the real frontend: its table on the node after a run. And the picture on
CoZ What Was Invented."""

from coz.chain.real_pixels import pick_real_pixels_color

from .conftest import each_renderer
from .picker import build, chain, make, run_it
from .picker import node as of

REPORT = make("CoZMeasure", chain=["loop", 3], ground_truth=["source", 0])
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
    "color drift",
]  # fmt: skip
COLORS = [f"rgb{pick_real_pixels_color(16.0**-k)}" for k in range(3)]


def short_chain(**nodes):
    chained = chain("astronaut.png", size=64, steps=2, scale=4)
    del chained["shown"]
    return chained | nodes


def test_the_table_stands_on_the_node(editor):
    build(editor, "classic", short_chain(report=REPORT))
    assert editor.run(TABLE)["cells"] == []
    run_it(editor)
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
        "real pixels", "its input", "the photograph", "PSNR and SSIM", "sharpness", "color drift",
        "The ground truth is fine enough for frames up to 1x",
    ]  # fmt: skip
    editor.use_renderer("vue")
    assert editor.run(TABLE) == shown


def test_each_of_several_chains_has_its_table(editor):
    nodes = short_chain(report=REPORT)
    several = {
        "source": nodes["source"],
        "other": make("ImageInvert", image=["source", 0]),
        "both": make("ImageBatch", image1=["source", 0], image2=["other", 0]),
        "list": make("RebatchImages", {"batch_size": 1}, images=["both", 0]),
    }
    nodes["loop"]["links"]["image"] = ["list", 0]
    build(editor, "classic", several | nodes)
    run_it(editor)
    shown = editor.run(TABLE)
    assert [row[0] for row in shown["cells"]] == ["zoom", "1x", "4x", "16x"] * 2
    assert shown["heads"] == 2 * len(NAMES)
    assert shown["dots"] == [None, *COLORS] * 2
    assert shown["parts"] == " ".join(["P TABLE" + 7 * " P"] * 2)


@each_renderer
def test_what_was_invented_shows_its_map_large_enough_to_read(editor, renderer):
    build(editor, renderer, short_chain(map=make("CoZDetailMap", chain=["loop", 3])))
    run_it(editor)
    node = of("CoZDetailMap")
    shown = editor.run(f"app.nodeOutputs[{node}.id]")
    assert len(shown["images"]) == 1
    assert shown["coz_text"][0].startswith("The deepest frame (16x) shows 4 x 4 real pixels: ")
    editor.page.wait_for_function(f"{node}.imgs?.[0]?.naturalWidth === 532")
    width, height = editor.run(f"[...{node}.size]")
    assert width >= 380
    assert height >= 800
