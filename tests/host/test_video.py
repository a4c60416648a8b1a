"""Zoom Video and Zoom Strip in the host's real executor, their files decoded again."""

import threading
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
import torch

from coz.render.strip import draw_strip
from coz.render.zoom_video import ZoomVideo, plan_zoom_positions

from .executor import CACHES
from .prompts import make_node

LOSS = 0.015
"""Mean difference that encoding may make on a soft picture: 4 of 255."""


@pytest.fixture
def temp(pack, tmp_path, monkeypatch):
    """The host's temporary folder, empty."""
    monkeypatch.setattr("folder_paths.temp_directory", str(tmp_path / "temp"))
    return tmp_path / "temp"


@pytest.fixture
def soft_chain(make_chain):
    """A chain of soft pictures, which a video can hold."""
    chain = make_chain(height=96, width=128, size=64, steps=2, center=(0.6, 0.4))
    frames = (
        torch.nn.functional.interpolate(frame[..., ::32, ::32], frame.shape[-2:], mode="bicubic")
        for frame in chain.frames
    )
    return replace(chain, frames=tuple(frame.clamp(0, 1) / 2 + 0.25 for frame in frames))


@pytest.fixture
def kept(soft_chain, define, keeper, give):
    """What reached the test's output node; registers that and a node with the chain."""
    from comfy_execution.graph_utils import GraphBuilder

    def expand(self, chain):
        """Makes the film within its own expansion, as a node of another pack may."""
        graph = GraphBuilder()
        film = graph.node("CoZZoomVideo", **film_prompt()["film"]["inputs"] | {"chain": chain})
        return {"result": (film.out(1),), "expand": graph.finalize()}

    give("TestChain", "COZ_CHAIN", soft_chain)
    define("TestWithin", expand, {"chain": ("COZ_CHAIN", {"rawLink": True})}, ("IMAGE",))
    return keeper("TestFilm", {"video": "VIDEO", "frames": "IMAGE"}, "optional")


def film_prompt(outputs=("video",), name="film", **inputs):
    settings = {"chain": ["chain", 0], "seconds_per_step": 0.5, "fps": 24.0, "easing": "none"}
    settings |= {"hold": 0.25, "reverse": False, "width": 0, "height": 0}
    links = {output: [name, ("video", "frames").index(output)] for output in outputs}
    return {
        "chain": make_node("TestChain"),
        name: make_node("CoZZoomVideo", **settings | inputs),
        "scales": make_node("TestFilm", **links),
    }


def rendered(chain, height=64, width=64, seconds=0.5, hold=0.25, fps=24.0, easing="none"):
    zoom = ZoomVideo(chain, height, width)
    positions = plan_zoom_positions(zoom.steps * seconds, hold, fps, easing)
    return torch.cat([frame.movedim(1, -1) for frame in zoom.render_frames(positions)])


def decoded(video):
    """Its frames as an IMAGE, by PyAV itself."""
    with av.open(video.get_stream_source()) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).float() / 255


def test_the_video_is_the_rendering(executor, kept, temp, soft_chain):
    executor("CLASSIC").run(film_prompt())
    video, expected = kept[0]["video"], rendered(soft_chain)
    film = decoded(video)
    # The way from the whole square, 96 pixels, to x_0 counts with the two steps.
    steps = 2 + np.log(96 / 64) / np.log(4)
    assert film.shape == (round((steps * 0.5 + 2 * 0.25) * 24), 64, 64, 3)
    assert (film - expected).abs().mean((1, 2, 3)).max() < LOSS
    assert (video.get_dimensions(), video.get_frame_rate()) == ((64, 64), Fraction(24))
    assert (film[-1] - soft_chain.frames[-1][0].movedim(0, -1)).abs().mean() < LOSS
    assert kept[0].keys() == {"video"}
    with av.open(video.get_stream_source()) as file:
        stream = file.streams.video[0].codec_context
        assert (stream.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.colorspace, stream.color_range) == (1, 1)  # BT.709, limited
    # The host's own reader, which Save Video and Get Video Components use.
    assert (video.get_components().images - expected).abs().mean() < LOSS


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"reverse": True}, {}),
        ({"easing": "smooth"}, {"easing": "smooth"}),
        ({"hold": 0.0, "fps": 29.97}, {"hold": 0, "fps": 29.97}),
        ({"width": 32}, {"height": 32, "width": 32}),
        ({"width": 48, "height": 20}, {"height": 20, "width": 48}),
        ({"width": 33, "height": 27}, {"height": 26, "width": 32}),
        ({"width": 200}, {"height": 200, "width": 200}),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()),
)
def test_settings(executor, kept, temp, soft_chain, settings, expected):
    executor("CLASSIC").run(film_prompt(outputs=("video", "frames"), **settings))
    frames = rendered(soft_chain, **expected)
    if settings.get("reverse"):
        frames = frames.flip(0)
    assert torch.equal(kept[0]["frames"], frames)
    film = decoded(kept[0]["video"])
    assert film.shape == frames.shape
    assert (film - frames).abs().mean() < LOSS
    rate = Fraction(round(settings.get("fps", 24) * 1000), 1000)
    assert kept[0]["video"].get_frame_rate() == rate


@pytest.mark.parametrize(
    ("cache", "name"),
    [
        *[(cache, "film") for cache in CACHES],
        (CACHES[0], "12:3"),  # in a subgraph
        *[pytest.param(cache, "12:3", marks=pytest.mark.long) for cache in CACHES[1:]],
    ],
)
def test_frames_are_made_when_they_are_connected(executor, kept, temp, soft_chain, cache, name):
    host = executor(cache)
    host.run(film_prompt(name=name))
    assert (name in host.run(film_prompt(name=name))) == (cache == "NONE")
    # Nothing that the node is given has changed; only what takes its output.
    assert name in host.run(film_prompt(outputs=("video", "frames"), name=name))
    assert torch.equal(kept[-1]["frames"], rendered(soft_chain))
    assert (decoded(kept[-1]["video"]) - kept[-1]["frames"]).abs().mean() < LOSS
    host.run(film_prompt(outputs=("frames",), name=name))
    assert torch.equal(kept[-1]["frames"], rendered(soft_chain))


def test_frames_are_made_within_another_node(executor, kept, temp, soft_chain):
    prompt = film_prompt()
    prompt["film"] = make_node("TestWithin", chain=["chain", 0])
    prompt["scales"]["inputs"] = {"frames": ["film", 0]}
    executor("CLASSIC").run(prompt)
    assert torch.equal(kept[0]["frames"], rendered(soft_chain))


def test_frames_that_are_too_many_are_refused_before_any_is_made(executor, kept, temp):
    large = {"width": 8192, "height": 8192}
    message = r"frames would take 32.2 GB of memory: 40 frames of 8192 x 8192\. The maximum is 8 GB"
    with pytest.raises(RuntimeError, match=message):
        executor("CLASSIC").run(film_prompt(outputs=("frames",), **large))
    assert not temp.exists()


def test_a_film_too_large_for_h264_is_refused(soft_chain, node):
    wide = replace(soft_chain, frames=(torch.zeros(1, 3, 16, 16386),) * 4)
    message = (
        r"would have 16386 x 16 pixels, .* at most 16384 .* 16386 x 16: give both width and height"
    )
    with pytest.raises(ValueError, match=message):
        node("CoZZoomVideo").execute(wide, 1.0, 24.0, "none", 0.0, False, 0, 0)


def test_an_interrupted_film_leaves_no_file(host, kept, temp, mm):
    prompt = film_prompt(seconds_per_step=60.0, fps=120.0)
    thread = threading.Thread(target=host.run, args=(prompt,))
    thread.start()
    while not (files := list(temp.glob("*.mp4"))) or not files[0].stat().st_size:
        assert thread.is_alive()
        time.sleep(0.01)
    mm.interrupt_current_processing()
    thread.join(10)
    assert not thread.is_alive()
    assert "execution_interrupted" in [event for event, _ in host.server.sent]
    assert list(temp.iterdir()) == []
    assert kept == []


@pytest.mark.long
def test_large_frames(temp, nodes_of, make_chain):
    """Two frames of 2048 x 2048: half of the way, and the deepest."""
    chain = make_chain(height=2048, width=2048, size=2048, steps=1)
    with torch.inference_mode():
        frames = ZoomVideo(chain, 2048, 2048).render_frames([0.5, 1.0])
        path = nodes_of("view.zoom_video").write_video(frames, 2048, 2048, 24)
    with av.open(str(path)) as file:
        assert file.streams.video[0].frames == 2


def test_a_strip(executor, soft_chain, kept):
    prompt = film_prompt()
    for layout in ("row", "grid", "steps"):
        for labels in (True, False):
            inputs = {"chain": ["chain", 0], "layout": layout, "labels": labels}
            prompt["film"] = make_node("CoZZoomStrip", **inputs)
            prompt["scales"]["inputs"] = {"frames": ["film", 0]}
            executor("CLASSIC").run(prompt)
            expected = draw_strip(soft_chain, layout, labels).movedim(1, -1)
            assert torch.equal(kept[-1]["frames"], expected)
    assert all(a["frames"].shape != b["frames"].shape for a, b in pairwise(kept))
