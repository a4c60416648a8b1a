"""The loupe of the target picker: for a picture that is shown much smaller than it is."""

import pytest
from PIL import Image
from playwright.sync_api import expect

from .conftest import each_renderer
from .picker import LOOP, build, chain, load_image, point, run_it, target, wait_for_picture

LOUPE = ".coz-loupe"
SIDE = 180
SIZE = 6_000, 1_500
SPOT = 4_500, 600  # the upper left corner of a red square
SQUARE = 200
RED = (SPOT[0] + SQUARE / 2) / SIZE[0], (SPOT[1] + SQUARE / 2) / SIZE[1]

# The colour at a place of the loupe, in its own pixels from its middle.
PIXEL = """([x, y]) => {
    const loupe = document.querySelector('.coz-loupe')
    const scale = loupe.width / loupe.clientWidth
    const at = [loupe.clientWidth / 2 + x, loupe.clientHeight / 2 + y]
    return [...loupe.getContext('2d').getImageData(at[0] * scale, at[1] * scale, 1, 1).data]
}"""
SHOW_LOOP = """scale => {
    const {pos} = app.graph.nodes.find(({type}) => type === 'CoZChainLoop')
    app.canvas.ds.scale = scale
    app.canvas.ds.offset = [300 / scale - pos[0], 100 / scale - pos[1]]
    app.canvas.setDirty(true, true)
}"""
MOVE_GRAPH = """([x, y]) => {
    const {ds} = app.canvas
    ds.offset = [ds.offset[0] + x / ds.scale, ds.offset[1] + y / ds.scale]
    app.canvas.setDirty(true, true)
}"""
LAYOUT = """() => JSON.stringify([...app.graph.nodes.map(({pos, size}) => [...pos, ...size]),
    document.querySelector('.coz-picker').getBoundingClientRect(), document.body.scrollHeight])"""


@pytest.fixture(scope="module")
def panorama(folder):
    """A file of the input folder: teal with a red square."""
    picture = Image.new("RGB", SIZE, "teal")
    picture.paste("red", (*SPOT, SPOT[0] + SQUARE, SPOT[1] + SQUARE))
    picture.save(folder / "input" / "panorama.png", compress_level=1)
    return "panorama.png"


def show(editor, renderer, source, **values):
    build(editor, renderer, chain(size=512, scale=4, **values) | {"source": source})


def colors(editor, *places):
    return [tuple(editor.run(PIXEL, place)[:3]) for place in places]


@each_renderer
def test_the_place_under_the_pointer_is_magnified(editor, panorama, renderer):
    page = editor.page
    loupe = page.locator(LOUPE)
    show(editor, renderer, load_image(panorama))
    box = wait_for_picture(editor, *SIZE)
    before = editor.run(LAYOUT)
    expect(loupe).not_to_be_visible()

    page.mouse.move(*point(box, *RED))
    expect(loupe).to_be_visible()
    # Half of it is the first frame of 512 pixels. So it magnifies the square, and nothing else:
    half = SQUARE / 512 * SIDE / 4
    middle, inside, outside = colors(editor, (0, 0), (half - 8, half - 8), (half + 8, 0))
    assert middle[0] > 200
    assert inside[0] > 200
    assert outside[0] < 40
    # The outline of the first frame, half a side wide.
    edge = colors(editor, *((SIDE / 4 + x, 20) for x in (-2, -1, 0, 1, 2)))
    assert max(map(min, edge)) > 100  # teal has no red
    area = loupe.bounding_box()
    assert (area["width"], area["height"]) == (SIDE, SIDE)
    x, y = point(box, *RED)
    assert not (area["x"] <= x <= area["x"] + SIDE and area["y"] <= y <= area["y"] + SIDE)
    assert editor.run(LAYOUT) == before
    assert editor.run("document.querySelector('.coz-loupe').tabIndex") == -1

    page.mouse.click(x, y)
    assert target(editor, LOOP) == pytest.approx(RED, abs=12 / SIZE[1])
    expect(loupe).to_be_visible()
    page.mouse.move(x, y + box[3] + 60)
    expect(loupe).not_to_be_visible()


@each_renderer
def test_keys_show_the_target(editor, panorama, renderer):
    page = editor.page
    loupe = page.locator(LOUPE)
    show(editor, renderer, load_image(panorama))
    box = wait_for_picture(editor, *SIZE)
    page.mouse.click(*point(box, *RED))
    page.mouse.move(5, 5)
    expect(loupe).not_to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(loupe).to_be_visible()
    assert colors(editor, (0, 0))[0][0] > 200
    for _ in range(15):
        page.keyboard.press("Shift+ArrowRight")  # off the square
    assert colors(editor, (0, 0))[0][0] < 40
    area = loupe.bounding_box()
    at = point(box, *target(editor, LOOP))
    assert area["x"] + SIDE / 2 == pytest.approx(at[0], abs=1)
    page.mouse.move(50, 5)
    expect(loupe).not_to_be_visible()
    page.keyboard.press("ArrowLeft")
    expect(loupe).to_be_visible()
    editor.run("document.activeElement.blur()")
    expect(loupe).not_to_be_visible()


@each_renderer
def test_a_zoomed_graph_keeps_the_loupe_as_large_as_it_is(editor, panorama, renderer):
    page = editor.page
    loupe = page.locator(LOUPE)
    show(editor, renderer, load_image(panorama))
    wait_for_picture(editor, *SIZE)
    for scale in (0.4, 1.6):
        editor.run(SHOW_LOOP, scale)
        left, top, _, height = wait_for_picture(editor, *SIZE)
        editor.run(MOVE_GRAPH, [300 - left, 450 - top - height / 2])
        x, y = point(wait_for_picture(editor, *SIZE), 0.02, 0.5)
        page.mouse.move(x, y)
        expect(loupe).to_be_visible()
        area = loupe.bounding_box()
        assert area["width"] == SIDE
        assert area["x"] + SIDE / 2 == pytest.approx(x, abs=1)


@each_renderer
def test_the_picture_of_a_run_is_magnified_too(editor, panorama, renderer):
    steps = {"classic": 1, "vue": 2}[renderer]  # a run that is all cached sends no picture
    nodes = chain(between="ImageInvert", size=512, scale=4, steps=steps)
    nodes["source"] = load_image(panorama)
    build(editor, renderer, nodes)
    run_it(editor)
    box = wait_for_picture(editor, *SIZE)
    editor.page.mouse.move(*point(box, *RED))
    expect(editor.page.locator(LOUPE)).to_be_visible()
    assert colors(editor, (0, 0)) == [pytest.approx((0, 255, 255), abs=20)]


@each_renderer
def test_an_ordinary_picture_needs_no_loupe(editor, folder, renderer):
    size = 2_000, 1_500
    Image.new("RGB", size, "teal").save(folder / "input" / "ordinary.png")
    show(editor, renderer, load_image("ordinary.png"))
    box = wait_for_picture(editor, *size)
    loupe = editor.page.locator(LOUPE)
    editor.page.mouse.move(*point(box, 0.4, 0.4))
    editor.page.mouse.move(*point(box, 0.5, 0.5))
    expect(loupe).not_to_be_visible()
    editor.page.mouse.click(*point(box, 0.3, 0.5))
    assert target(editor, LOOP)[0] == pytest.approx(0.3, abs=0.01)
    expect(loupe).not_to_be_visible()


@each_renderer
def test_a_target_that_is_set_elsewhere_shows_no_loupe(editor, panorama, renderer):
    nodes = chain(size=512) | {"source": load_image(panorama)}
    nodes["mask"] = {"type": "SolidMask"}
    nodes["loop"]["links"]["mask"] = ["mask", 0]
    loop = nodes.pop("loop")
    shown = nodes.pop("shown")
    build(editor, renderer, nodes | {"loop": loop, "shown": shown})
    box = wait_for_picture(editor, *SIZE)
    editor.page.mouse.move(*point(box, 0.4, 0.4))
    editor.page.mouse.move(*point(box, 0.5, 0.5))
    expect(editor.page.locator(LOUPE)).not_to_be_visible()
