"""The picker shows the picture that runs, before and after a run, and a click on it lands there."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.camera_files import DISPLAY_P3, oriented, quarters
from tests.support.lying_files import ihdr, png
from tools.host.client import ServerClient

from .conftest import each_renderer
from .picker import (
    build,
    chain,
    make,
    note,
    point,
    run_it,
    set_values,
    source_of,
    target,
    wait_for_picture,
)

RED = (220, 20, 20)
TURNED = ["6.webp", "5.jpg", "2.png"]
"""By the orientation in each file; tests/host/test_source.py has all of them."""
LARGE = "too large to show before a run: run once to see it"
SIZE = (1000, 600)
"""Larger than the copy that the picker gets: a click counts in the picture's own pixels."""

# The pixels that the picker shows, without alpha.
PIXELS = """async () => {
    const image = document.querySelector('.coz-picker img')
    await image.decode()
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight)
    const context = canvas.getContext('2d')
    context.drawImage(image, 0, 0)
    const {data, width, height} = context.getImageData(0, 0, canvas.width, canvas.height)
    const bytes = Array.from(data, byte => String.fromCharCode(byte)).join('')
    return [width, height, btoa(bytes), image.src.slice(0, 5)]
}"""


def shown(editor):
    """The pixels that the picker shows, and whether they came from a run."""
    width, height, data, start = editor.run(PIXELS)
    pixels = np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)
    assert (pixels[..., 3] == 255).all()
    return pixels[..., :3], start != "data:"


def fit(name, node="LoadImage"):
    """A first frame of 16 pixels, which runs in no time."""
    return {
        "source": make(node, {"image": name}),
        "first": make("CoZFitImage", {"size": 16}, image=["source", 0]),
        "shown": make("PreviewImage", images=["first", 0]),
    }


def fetch(editor, file):
    named = {name: file[name] for name in ("filename", "subfolder", "type")}
    picture = Image.open(io.BytesIO(ServerClient(editor.url).download(named)))
    return np.asarray(picture.convert("RGB"))


def frame_of(editor, outputs):
    (frame,) = (out["images"][0] for out in outputs.values() if "images" in out)
    return fetch(editor, frame)


def wait_for_run(editor):
    """Until the picker shows what a run got."""
    is_from_run = "document.querySelector('.coz-picker img')?.src.includes('type=temp')"
    editor.page.wait_for_function(is_from_run)


def red_of(pixels):
    """The middle of the red quarter as fractions."""
    y, x = np.nonzero((np.abs(pixels.astype(int) - RED) < 60).all(-1))
    return (x.mean() + 0.5) / pixels.shape[1], (y.mean() + 0.5) / pixels.shape[0]


@each_renderer
def test_a_click_on_red_zooms_into_red(editor, folder, renderer):
    for name in TURNED:
        oriented(folder / "input" / name, int(name[0]), SIZE)
    build(editor, renderer, fit(TURNED[0]))
    turned = set()
    for name in TURNED:
        set_values(editor, "LoadImage", image=name)
        editor.page.wait_for_function(
            "document.querySelector('.coz-picker img')?.src.startsWith('data:')"
        )
        before, is_run = shown(editor)
        height, width = before.shape[:2]
        size = SIZE if width > height else SIZE[::-1]
        turned.add(size)
        assert (max(before.shape), is_run) == (991, False), name
        red = pytest.approx(red_of(before), abs=5e-3)
        place = point(wait_for_picture(editor, *size), *red_of(before))
        editor.page.mouse.click(*place)
        assert target(editor, "CoZFitImage") == red, name
        outputs = run_it(editor)
        source = source_of(outputs)
        assert (source["width"], source["height"]) == size
        assert (np.abs(frame_of(editor, outputs).astype(int) - RED) < 30).all(), name
        assert np.array_equal(before, fetch(editor, source)), name
        wait_for_run(editor)
        assert np.array_equal(shown(editor)[0], before)
        editor.page.mouse.click(place[0] - 20, place[1])
        assert target(editor, "CoZFitImage") != red
        editor.page.mouse.click(*place)
        assert target(editor, "CoZFitImage") == red, name
    assert turned == {SIZE, SIZE[::-1]}


@each_renderer
def test_colours_are_those_that_run(editor, folder, renderer):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 4), dtype=np.uint8)
    noise[:, :30, 3] = 0
    Image.fromarray(noise[..., :3]).save(folder / "input" / "p3.png", icc_profile=DISPLAY_P3)
    Image.fromarray(noise).save(folder / "input" / "hidden.png")
    for name in ("p3.png", "hidden.png"):
        build(editor, renderer, fit(name))
        wait_for_picture(editor, 60, 40)
        assert np.array_equal(shown(editor)[0], noise[..., :3])
        run_it(editor)
        wait_for_run(editor)
        assert np.array_equal(shown(editor)[0], noise[..., :3])


@each_renderer
def test_other_loaders_and_folders(editor, folder, renderer):
    (folder / "input" / "clipspace").mkdir(exist_ok=True)
    painted = quarters().convert("RGBA")
    painted.putalpha(0)  # the mask editor makes what is painted transparent
    painted.save(folder / "input" / "clipspace" / "painted-masked-1.png")
    oriented(folder / "output" / "6.webp", 6)
    for name, node, size in (
        ("clipspace/painted-masked-1.png [input]", "LoadImage", (60, 40)),
        ("6.webp [output]", "LoadImage", (40, 60)),
        ("6.webp [output]", "LoadImageOutput", (40, 60)),
    ):
        build(editor, renderer, fit(name, node))
        wait_for_picture(editor, *size)
        before, _ = shown(editor)
        source = source_of(run_it(editor))
        assert (source["width"], source["height"]) == size
        assert np.array_equal(before, fetch(editor, source))
    nodes = chain("rocket.jpg")  # its profile is Adobe RGB, which CoZ Sample Picture does not read
    nodes = {"source": nodes["source"], **{k: v for k, v in fit("").items() if k != "source"}}
    build(editor, renderer, nodes)
    wait_for_picture(editor, 640, 427)
    before, _ = shown(editor)
    assert np.array_equal(before, fetch(editor, source_of(run_it(editor))))


def test_a_file_that_is_replaced_is_shown_when_somebody_looks(editor, folder):
    path = folder / "input" / "edited.png"
    Image.new("RGB", (60, 40), "teal").save(path)
    build(editor, "classic", fit("edited.png"))
    wait_for_picture(editor, 60, 40)
    run_it(editor)
    wait_for_run(editor)
    Image.new("RGB", (50, 40), "maroon").save(path)
    editor.run("() => { dispatchEvent(new Event('focus')) }")  # back from another program
    wait_for_picture(editor, 50, 40)
    pixels, is_run = shown(editor)
    assert (pixels[0, 0].tolist(), is_run) == ([128, 0, 0], False)
    source = source_of(run_it(editor))
    assert (source["width"], source["height"]) == (50, 40)
    wait_for_run(editor)

    Image.new("RGB", (40, 40), "navy").save(path)
    editor.page.mouse.move(5, 5)
    editor.page.mouse.move(*point(wait_for_picture(editor, 50, 40), 0.5, 0.5))
    wait_for_picture(editor, 40, 40)

    path.unlink()
    editor.run("() => { dispatchEvent(new Event('focus')) }")
    expect(note(editor)).to_have_text("the image file is gone: choose another")
    Image.new("RGB", (60, 40), "teal").save(path)
    editor.run("() => { dispatchEvent(new Event('focus')) }")
    wait_for_picture(editor, 60, 40)


def test_what_the_server_cannot_show_is_shown_after_a_run(editor, folder):
    # A header that Pillow does not know, and which ffmpeg reads all the same.
    (folder / "input" / "a.dpx").write_bytes(dpx(60, 40))
    build(editor, "classic", fit("a.dpx"))
    expect(note(editor)).to_have_text("cannot be shown before a run: run once to see it")
    run_it(editor)
    wait_for_picture(editor, 60, 40)
    wait_for_run(editor)
    for name, content in (("text.png", b"text"), ("half.png", png(ihdr(60, 40))[:30])):
        (folder / "input" / name).write_bytes(content)
        build(editor, "classic", fit(name))
        expect(note(editor)).to_have_text("cannot be shown before a run: run once to see it")


def dpx(width, height):
    import av

    with io.BytesIO() as file:
        with av.open(file, "w", format="image2pipe") as output:
            stream = output.add_stream("dpx", rate=1)
            stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
            pixels = np.asarray(quarters(width, height))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode())
        return file.getvalue()
