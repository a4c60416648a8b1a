"""The viewer's "save as clip": what the route renders, refuses and gives up."""

import contextlib
import http.client
import io
import json
import re
import urllib.parse
import urllib.request
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from coz.chain.zoom_chain import ZoomChain
from coz.geometry import Target, Window
from coz.render.zoom_video import ZoomVideo
from tools import host
from tools.host.client import ServerClient, run_prompt

from .prompts import chain_prompt, make_node


@pytest.fixture(scope="module")
def temp(server_folder):
    """The server's folder of temporary files."""
    folder = server_folder / "temp"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def plant(temp):
    """Writes a chain as the viewer does; the name of its run."""

    def plant(chain, name="planted"):
        layers = [f"{name}_{k}.png" for k in range(len(chain.frames))]
        for layer, frame in zip(layers, chain.frames, strict=True):
            pixels = (frame[0].movedim(0, -1) * 255).byte().numpy()
            Image.fromarray(pixels).save(temp / layer, compress_level=0)
        record = {"chain": chain.to_json(), "layers": layers}
        (temp / layers[0]).with_suffix(".json").write_text(json.dumps(record), "utf-8")
        return layers[0]

    return plant


def ask(server, run, **headers):
    """An open answer to a wish for a clip."""
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=120)
    query = urllib.parse.urlencode({"run": run})
    connection.request("POST", f"/chain_of_zoom/clip?{query}", headers=headers)
    return connection, connection.getresponse()


def make(server, run):
    """(status, lines) of a wish that is answered to the end."""
    connection, answer = ask(server, run)
    with contextlib.closing(connection):
        return answer.status, [json.loads(line) for line in answer.read().splitlines()]


def refusal(server, run, **headers):
    connection, answer = ask(server, run, **headers)
    with contextlib.closing(connection):
        assert answer.getheader("Content-Type").startswith("text/plain")
        return answer.status, answer.read().decode()


def open_clip(server, line):
    return av.open(io.BytesIO(ServerClient(server).download(line["file"])))


def frames_of(file):
    return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


def photograph(steps, size):
    """A chain of smooth pictures, which a video keeps."""
    ramp = torch.linspace(0, 1, size)
    x, y = torch.meshgrid(ramp, ramp, indexing="xy")
    frame = torch.stack([x, y, x * y])[None]
    quarter = Window(size * 3 / 8, size * 3 / 8, size / 4, size / 4)
    return ZoomChain(4.0, (frame,) * (steps + 2), (Window(0, 0, size, size), *[quarter] * steps),
        ("",) * steps, (0,) * steps, Target(0.5, 0.5))  # fmt: skip


def test_a_run_of_the_viewer_becomes_a_clip(server):
    prompt = chain_prompt(steps=2, size=256)
    prompt["viewer"] = make_node("CoZZoomViewer", chain=["loop", 3])
    shown = run_prompt(server, prompt).outputs["viewer"]
    status, lines = make(server, json.loads(*shown["coz_layers"])[0]["filename"])
    assert status == 200
    *progress, last = [line.get("progress", 1) for line in lines]
    assert progress == sorted(progress)
    assert progress[0] == 0
    assert max(progress) < last == 1
    with open_clip(server, lines[-1]) as file:
        stream = file.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 256, 256)
        assert stream.average_rate == 30
        # 512 -> 256 pixels is half a step of 4x, then two steps.
        assert len(frames_of(file)) == round((2.5 * 1.5 + 1) * 30)


def test_it_begins_and_ends_with_the_viewers_pictures(server, plant):
    chain = photograph(2, 128)
    _, lines = make(server, plant(chain))
    with open_clip(server, lines[-1]) as file:
        frames = frames_of(file)
    zoom = ZoomVideo(chain, 128, 128)
    for frame, t in ((frames[0], 0.0), (frames[-1], 1.0)):
        expected = (zoom.render_frame(t)[0].movedim(0, -1) * 255).numpy()
        assert np.abs(frame - expected).mean() < 3
    assert np.abs(frames[0].astype(float) - frames[14]).mean() < 1  # half a second at rest


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(1400, 2800, (960, 1920)), (2800, 1400, (1920, 960)), (1500, 1500, (1080, 1080)), (21, 33, (20, 32))],
)  # fmt: skip
def test_it_has_at_most_1080p(nodes_of, make_chain, height, width, size):
    chain = make_chain()
    chain = replace(chain, frames=(chain.frames[0], torch.zeros(1, 3, height, width)),
        windows=chain.windows[:1], prompts=(), seeds=())  # fmt: skip
    assert nodes_of("view.clip")._choose_size(chain) == size


def test_it_takes_at_most_ten_seconds(server, plant):
    _, lines = make(server, plant(photograph(16, 32)))
    with open_clip(server, lines[-1]) as file:
        assert len(frames_of(file)) == 300


def test_page_and_server_fly_alike(nodes_of):
    text = (host.ROOT / "js" / "viewer" / "play.js").read_text("utf-8")
    clip = nodes_of("view.clip")
    for name, seconds in (("STEP_MS", clip.SECONDS_PER_STEP), ("REST_MS", clip.HOLD_SECONDS)):
        assert int(re.search(rf"const {name} = (\d+)", text)[1]) == 1000 * seconds


@pytest.mark.parametrize(
    ("run", "status", "message"),
    [
        ("", 400, "run must be the file name of the first image that a viewer shows, got ''"),
        ("ComfyUI_temp_qqqqq_00001_.png", 404, "no longer in ComfyUI's temporary folder. Run again"),
    ],
)  # fmt: skip
def test_what_is_no_run_of_the_viewer_is_refused(server, run, status, message):
    code, text = refusal(server, run)
    assert code == status
    assert message in text


def test_a_chain_of_one_frame_is_refused(server, plant):
    message = "This chain has only one frame: there is nothing to play"
    assert refusal(server, plant(photograph(0, 32))) == (400, message)


def test_a_first_frame_inside_its_picture_is_a_way(server, plant, make_chain):
    status, lines = make(server, plant(make_chain(steps=0)))
    assert (status, list(lines[-1])) == (200, ["file"])


def test_a_huge_chain_is_refused(server, plant, temp):
    run = plant(photograph(0, 32))
    path = (temp / run).with_suffix(".json")
    kept = json.loads(path.read_text("utf-8"))
    record = json.loads(kept["chain"]) | {"frames": [[14_000, 14_000], [32, 32]]}
    record["windows"] = [[0, 0, 32, 32]]
    path.write_text(json.dumps(kept | {"chain": json.dumps(record)}), "utf-8")
    code, text = refusal(server, run)
    assert code == 400
    assert "196,001,024 pixels together, but the maximum for a clip is 134,217,728" in text


def test_pictures_that_are_gone_or_damaged_are_an_error(server, plant, temp):
    run = plant(photograph(1, 32))
    (temp / run.replace("_0", "_2")).write_bytes(b"no picture")
    _, lines = make(server, run)
    assert lines[-1] == {"error": "planted_2.png: this is no PNG image"}
    (temp / run.replace("_0", "_2")).unlink()
    _, lines = make(server, run)
    assert "Run again" in lines[-1]["error"]


def clips_in(folder):
    return set(folder.glob("coz_zoom_*.mp4"))


def test_one_at_a_time_and_a_cancelled_one_leaves_nothing(server, plant, temp):
    slow = plant(photograph(8, 1080), "slow")
    before = clips_in(temp)
    connection, answer = ask(server, slow)
    assert json.loads(answer.readline()) == {"progress": 0}
    while not clips_in(temp) - before:  # the file begins with the first packet of the encoder
        assert json.loads(answer.readline())["progress"] < 1
    busy = (409, "ComfyUI is already making another clip. Try again when it is done")
    assert refusal(server, slow) == busy
    connection.close()
    answer.close()
    quick = plant(photograph(1, 32), "quick")
    status = 409
    while status == 409:
        connection, answer = ask(server, quick)
        with contextlib.closing(connection):
            status, text = answer.status, answer.read().decode()
        assert status == 200 or (status, text) == busy
    assert len(clips_in(temp) - before) == 1  # the quick one
