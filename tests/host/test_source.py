"""The picture that the target picker shows before a run: what Load Image would give, exactly."""

import base64
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from coz.resample import resize
from tests.support.camera_files import DISPLAY_P3, oriented, quarters
from tests.support.lying_files import ihdr, png, rows
from tools.host import ROOT
from tools.host.client import run_prompt

from .prompts import chain_prompt, fetch_picture, make_node

ROUTE = "/chain_of_zoom/source"
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="uses links, pipes or /proc")
MAX_PREVIEW_PIXELS = 768**2


@pytest.fixture(scope="module")
def site(servers):
    url, folder = servers()
    make_files(folder)
    return url, folder


def ask(url, image, node="LoadImage", **headers):
    """(status, headers, JSON) of the route's answer."""
    answer = requests.get(url + ROUTE, {"node": node, "image": image}, headers=headers, timeout=120)
    return answer.status_code, answer.headers, answer.json() if answer.content else None


def shown(reply):
    with Image.open(io.BytesIO(base64.b64decode(reply["png"]))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert "icc_profile" not in picture.info
        return np.asarray(picture)


def make_files(folder):
    """Write files that browsers decode differently."""
    for suffix in ("webp", "jpg", "png"):
        for orientation in range(1, 9):
            # Of other widths, ComfyUI 0.24 and 0.27 decode WebP a little differently each time.
            oriented(folder / "input" / f"{orientation}.{suffix}", orientation, (64, 32))
    noise = np.random.default_rng(0).integers(0, 256, (30, 64, 4), dtype=np.uint8)
    folder = folder / "input"
    Image.fromarray(noise[..., :3]).save(folder / "p3.png", icc_profile=DISPLAY_P3)
    noise[:, :25, 3] = 0
    Image.fromarray(noise).save(folder / "hidden.png")
    Image.fromarray(noise).save(folder / "hidden.webp", lossless=True, exact=True)
    Image.fromarray(noise[..., 0]).save(folder / "grey.png")
    Image.fromarray(noise[..., 0].astype(np.uint16) * 257).save(folder / "grey16.png")
    Image.fromarray(noise[..., :3]).save(folder / "a.tif")
    large = np.random.default_rng(1).integers(0, 256, (900, 1600, 3), dtype=np.uint8)
    Image.fromarray(large).save(folder / "large.png")
    frames = [Image.fromarray(noise[..., :3]), Image.fromarray(255 - noise[..., :3])]
    for name in ("two.webp", "two.png", "two.gif"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])


def downscaled(image):
    """An IMAGE as the picker shows it, in 8 bits rounded down as the host saves pictures."""
    image = image[:1, ..., :3].movedim(-1, 1)
    height, width = image.shape[-2:]
    shrink = min(1, (MAX_PREVIEW_PIXELS / (height * width)) ** 0.5)
    small = resize(image, round(height * shrink), round(width * shrink)).clamp(0, 1)
    return (small[0].movedim(0, -1) * 255).byte().numpy()


def test_it_is_what_load_image_gives(site, node, monkeypatch):
    url, folder = site
    names = [f"{k}.{suffix}" for suffix in ("webp", "jpg", "png") for k in range(1, 9)]
    names += ["p3.png", "hidden.png", "hidden.webp", "grey.png", "grey16.png", "a.tif"]
    monkeypatch.setattr("folder_paths.input_directory", str(folder / "input"))
    for name in [*names, "large.png", "two.webp", "two.png", "two.gif"]:
        (image, *_) = node("LoadImage")().load_image(name)
        status, headers, reply = ask(url, name)
        assert (status, headers["Cache-Control"]) == (200, "no-cache"), (name, reply)
        assert [reply["height"], reply["width"]] == list(image.shape[1:3]), name
        assert np.array_equal(shown(reply), downscaled(image)), name
    # Else the pictures prove nothing: the host turns, and keeps what profile and alpha hide.
    assert ask(url, "6.webp")[2]["width"] == 32
    assert len(np.unique(shown(ask(url, "hidden.png")[2])[:, :25])) > 200
    assert shown(ask(url, "large.png")[2]).shape == (576, 1024, 3)


@pytest.mark.parametrize("name", ["large.png", "6.webp", "5.jpg", "p3.png", "hidden.png"])
def test_a_run_shows_the_same(site, name):
    url, folder = site
    place = {"frame": "native pixels", "size": 16, "center_x": 0.5, "center_y": 0.5}
    prompt = {
        "source": make_node("LoadImage", image=name),
        "first": make_node("CoZFitImage", image=["source", 0], **place),
        "shown": make_node("PreviewImage", images=["first", 0]),
    }
    source = json.loads(*run_prompt(url, prompt).outputs["first"]["coz_source"])
    reply = ask(url, name)[2]
    assert (source["width"], source["height"]) == (reply["width"], reply["height"])
    with Image.open(folder / source["type"] / source["subfolder"] / source["filename"]) as picture:
        assert np.array_equal(np.asarray(picture), shown(reply))


def test_a_run_shows_the_source_with_its_size_and_target(server):
    prompt = chain_prompt(steps=1, center_x=0.45)
    place = {"frame": "native pixels", "size": 64, "center_x": 0.2, "center_y": 0.6}
    prompt["first"] = make_node("CoZFitImage", image=["wide", 0], **place)
    wide = {"upscale_method": "bilinear", "width": 2000, "height": 500, "crop": "disabled"}
    prompt["wide"] = make_node("ImageScale", image=["source", 0], **wide)
    target = {"center_x": ["first", 2], "center_y": ["first", 3], "scale": 4}
    target |= {"image": ["first", 0], "resampling": "bicubic"}
    prompt["zoom"] = make_node("CoZCropCenterZoom", **target)
    prompt["shown"] = make_node("PreviewImage", images=["zoom", 0])
    outputs = run_prompt(server, prompt).outputs
    shown = {key: ui["coz_source"] for key, ui in outputs.items() if "coz_source" in ui}
    sources = {key: json.loads(*source) for key, source in shown.items()}

    # Nor is any of them one of the results that an app of the frontend shows: files in a list.
    assert {
        key for ui in outputs.values() for key in ui if any(isinstance(x, dict) for x in ui[key])
    } == {"images"}

    # The loop's own first frame and zooms write no picture each.
    assert {key: (s["width"], s["height"], s["target"]) for key, s in sources.items()} == {
        "loop.0.0.coz_collect": (512, 512, [0.45, 0.7]),
        "first": (2000, 500, [0.2, 0.6]),
        "zoom": (64, 64, [0.5, 0.5]),
    }
    file = {key: sources["first"][key] for key in ("filename", "subfolder", "type")}
    assert fetch_picture(server, file).shape == (384, 1536, 3)

    # What comes from the cache shows its picture too: a reloaded page has nothing else.
    again = run_prompt(server, prompt)
    assert again.executed == []
    assert json.loads(*again.outputs["first"]["coz_source"]) == sources["first"]


def test_a_sample_is_what_its_node_gives(site, node):
    url, _ = site
    for name in ("coffee.png", "rocket.jpg"):  # the rocket's profile is Adobe RGB
        reply = ask(url, name, "CoZSamplePicture")[2]
        image = node("CoZSamplePicture").execute(name)[0]
        assert [reply["height"], reply["width"]] == list(image.shape[1:3])
        assert np.array_equal(shown(reply), downscaled(image))
    wrong = ["README.md", "../README.md", "../pictures/coffee.png", "..", ".", "x" * 5000, b"\xff"]
    for name in (*wrong, "/etc/passwd", "../nodes/host.py", "\0", "coffee.png\0.jpg"):
        assert ask(url, name, "CoZSamplePicture")[0] == 403
    assert ask(url, "", "CoZSamplePicture")[0] == 400


def test_folders_of_the_host_are_served(site):
    url, folder = site
    (folder / "input" / "a b").mkdir(exist_ok=True)
    (folder / "temp").mkdir(exist_ok=True)
    for place, size in (("input/a b/x #1.png", 10), ("output/x.png", 11), ("temp/x.png", 12)):
        Image.new("RGB", (size, 9)).save(folder / place)
    for name, width in {
        "a b/x #1.png": 10, "a b/x #1.png [input]": 10, "x.png [output]": 11, "x.png [temp]": 12,
    }.items():  # fmt: skip
        for node in ("LoadImage", "LoadImageOutput"):
            assert ask(url, name, node)[2]["width"] == width


@ON_LINUX
def test_nothing_else_is_served(site, tmp_path):
    url, folder = site
    secret = tmp_path / "secret.png"
    Image.new("RGB", (5, 5)).save(secret)
    Image.new("RGB", (5, 5)).save(folder / "beside.png")
    Image.new("RGB", (5, 5)).save(folder / "output" / "made.png")
    (folder / "input" / "link.png").symlink_to(secret)
    (folder / "input" / "linked").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(folder / "input" / "pipe.png")
    for name in (
        str(secret), "../beside.png", "../output/made.png", "x/../../beside.png", "link.png",
        "linked/secret.png", f"{secret} [output]", "../beside.png [temp]", "/etc/passwd",
        "../../../../../../../etc/passwd", "../input-other/x.png",
    ):  # fmt: skip
        status, _, reply = ask(url, name)
        assert (status, "not in ComfyUI's input" in reply["error"]) == (403, True), name
    missing = ["made.png [models]", "nowhere.png", "pipe.png", "a\0b.png", "x" * 5000]
    for name in (*missing, ".", "\ud800", b"\xff"):
        name = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
        for node in ("LoadImage", "LoadImageOutput"):
            assert ask(url, name, node)[0] == 404, name
    for node in ("SaveImage", "CoZChainLoop", "", "__class__"):
        assert ask(url, "6.webp", node)[0] == 400
    for query in ("", "?image=6.webp", "?node=LoadImage", "?node=LoadImage&image="):
        assert requests.get(url + ROUTE + query).status_code == 400


def process_of(url):
    """The folder in /proc of the server's process."""
    port = url.rpartition(":")[2]
    for process in os.listdir("/proc"):
        if process.isdigit():
            try:
                with open(f"/proc/{process}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if port.encode() in words and any(word.endswith(b"main.py") for word in words[:2]):
                return Path("/proc", process)
    raise AssertionError("no such server")


def peak_memory(process):
    """Most memory that it has used since its peak was cleared, in bytes."""
    return int(re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())[1]) * 1024


@ON_LINUX
def test_pictures_of_20000_pixels(site):
    url, folder = site
    process = process_of(url)
    noise = np.random.default_rng(0).integers(0, 256, (3, 20_000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "input" / "thin.png")
    reply = ask(url, "thin.png")[2]
    assert (reply["width"], reply["height"]) == (20_000, 3)
    assert shown(reply).shape == (1, 3072, 3)
    for size in ((20_000, 20_000), (12_000, 12_000), (10_000, 7_000), (2**31 - 1, 2**31 - 1)):
        (folder / "input" / "huge.png").write_bytes(png(ihdr(*size), rows(1, 1)))
        (process / "clear_refs").write_text("5")
        before = peak_memory(process)
        status, _, reply = ask(url, "huge.png")
        assert (status, reply["state"] != "") == (413, True), size
        assert "has more than 67108864 pixels" in reply["error"]
        assert peak_memory(process) - before < 50e6
    frames = [Image.new("P", (1000, 1000), i) for i in range(68)]
    frames[0].save(folder / "input" / "long.gif", save_all=True, append_images=frames[1:])
    assert ask(url, "long.gif")[0] == 413


def test_a_tiny_frame_counts_for_more(nodes_of, input_folder, monkeypatch):
    source = nodes_of("load.source")
    monkeypatch.setattr(source, "MAX_SOURCE_PIXELS", 3 * source.MIN_ANIMATION_FRAME_PIXELS)
    for count, status in ((3, 200), (4, 413)):
        frames = [Image.new("RGB", (16, 16), (60 * i, 0, 0)) for i in range(count)]
        frames[0].save(input_folder / "a.gif", save_all=True, append_images=frames[1:])
        assert source._answer({"node": "LoadImage", "image": "a.gif"}, ()).status == status


@pytest.mark.parametrize("name", ["//host/share/a.png", r"\\host\share\a.png", "/etc/passwd"])
def test_a_name_of_another_computer_is_refused_unseen(nodes_of, monkeypatch, name):
    source = nodes_of("load.source")
    monkeypatch.setattr(source.os.path, "realpath", None)  # asks the computer, on Windows
    assert source._answer({"node": "LoadImage", "image": name}, ()).status == 403


def test_what_is_no_picture_is_refused(site):
    url, folder = site
    folder = folder / "input"
    (folder / "text.png").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "lying.png").write_bytes(png(ihdr(4000, 4000), rows(1, 1)))
    whole = io.BytesIO()
    quarters(600, 400).save(whole, "webp", lossless=True)
    (folder / "half.webp").write_bytes(whole.getvalue()[:100])
    (folder / "page.html").write_text("<script>alert(1)</script>")
    for name in ("text.png", "empty.png", "half.webp", "page.html"):
        status, headers, reply = ask(url, name)
        kind = headers["Content-Type"].partition(";")[0]
        assert (status, kind) == (415, "application/json"), name
        # Without the reason: it would tell where the file lies on the server.
        assert reply["error"] == f"{name!r} cannot be shown before a run"
    # The host decides what becomes of a file that is cut off.
    assert ask(url, "lying.png")[0] in {200, 415}
    assert ask(url, "coffee.png", "CoZSamplePicture")[0] == 200


def test_a_video_is_not_decoded(site):
    import av

    url, folder = site
    with av.open(str(folder / "input" / "film.mp4"), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(3):
            film.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        film.mux(stream.encode())
    assert ask(url, "film.mp4")[0] == 415


def test_a_changed_file_is_told_and_an_unchanged_one_not_sent_again(site):
    url, folder = site
    path = folder / "input" / "edited.png"
    Image.new("RGB", (8, 8), "red").save(path)
    _, headers, first = ask(url, "edited.png")
    assert headers["ETag"] == f'"{first["state"]}"'
    for tag in (headers["ETag"], f"W/{headers['ETag']}"):
        status, again, nothing = ask(url, "edited.png", **{"If-None-Match": tag})
        assert (status, again["ETag"], nothing) == (304, headers["ETag"], None)
    stamp = path.stat()
    assert first["changed"] == pytest.approx(max(stamp.st_mtime, stamp.st_ctime) * 1000, abs=1)
    Image.new("RGB", (8, 8), "blue").save(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a copy that keeps its time
    status, _, second = ask(url, "edited.png", **{"If-None-Match": headers["ETag"]})
    assert (status, second["changed"] > first["changed"]) == (200, True)
    assert shown(second)[0, 0].tolist() == [0, 0, 255]
    path.unlink()
    assert ask(url, "edited.png", **{"If-None-Match": headers["ETag"]})[0] == 404


def test_few_pictures_are_kept(nodes_of, node, input_folder, before):
    source = nodes_of("load.source")
    source._load.cache_clear()
    loads = []
    before(node("LoadImage"), "load_image", lambda self, image: loads.append(image))
    names = [f"{i}.png" for i in range(10)]
    for name in names:
        Image.new("RGB", (4, 4)).save(input_folder / name)
    for name in [*names, *names[2:], names[0]]:
        assert source._answer({"node": "LoadImage", "image": name}, ()).status == 200
    assert loads == [*names, names[0]]
    assert source._load.cache_info().currsize == 8


def test_the_graphics_card_is_not_touched(nodes_of, input_folder, mm, monkeypatch):
    Image.new("RGB", (4, 4)).save(input_folder / "a.png")
    # With --gpu-only Load Image puts pictures there; meta stands for any device that is not the CPU.
    monkeypatch.setattr(mm, "intermediate_device", lambda: torch.device("meta"))
    answer = nodes_of("load.source")._answer({"node": "LoadImage", "image": "a.png"}, ())
    assert (answer.status, "--gpu-only" in answer.text) == (501, True)


def test_the_bundled_pictures_need_nothing_of_a_file_that_is_dropped():
    for path in (ROOT / "pictures").glob("*.[pj]*g"):
        with Image.open(path) as picture:
            assert picture.mode == "RGB"
            assert picture.getexif().get(0x0112, 1) == 1
