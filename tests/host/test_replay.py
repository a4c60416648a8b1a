"""Public reports about upscaling, replayed on the nodes: each was right when it was tried, and stays so.

The network has zero weights: it repeats each pixel, so that every result is known exactly.
"""

import av
import pytest
import torch
from PIL import Image

from coz.render.zoom_video import ZoomVideo
from tests.support.images import noise

from .prompts import as_full_image, chain_prompt, kept_prompt, make_node, more


def repeat(image, times):
    return image.repeat_interleave(times, 1).repeat_interleave(times, 2)


@pytest.fixture(scope="module", autouse=True)
def nearest(load_upscale_model):
    """Files of networks that repeat each pixel 1, 2, 3, 4 or 8 times."""
    from spandrel.architectures.Compact import Compact

    for factor in (1, 2, 3, 4, 8):
        network = Compact(num_feat=4, num_conv=1, upscale=factor)
        for weight in network.state_dict().values():
            weight.zero_()
        load_upscale_model(f"nearest_x{factor}", network)


@pytest.fixture
def run(executor, keeper, give):
    """What Chain Loop and Full-Image SR make of an image with such a network."""
    kept = keeper("TestKeep", {"image": "IMAGE", "chain": "COZ_CHAIN"}, "optional")

    def run_node(image, node_id, factor=4, **inputs):
        give("TestSource", "IMAGE", image)
        prompt = chain_prompt(color_fix="none", prompt="", **inputs)
        if node_id == "CoZFullImage":
            as_full_image(prompt, **inputs)
        prompt["source"] = make_node("TestSource")
        prompt["model"]["inputs"]["model_name"] = f"nearest_x{factor}.safetensors"
        links = {"image": ["loop", 0]}
        if node_id == "CoZChainLoop":
            links["chain"] = ["loop", 3]
        prompt["scales"] = make_node("TestKeep", **links)
        executor("CLASSIC").run(prompt)
        return kept[-1]["chain" if node_id == "CoZChainLoop" else "image"]

    return run_node


@pytest.mark.parametrize("overlap", [0, 32, *more(8, 127)])
@pytest.mark.parametrize("size", [(65, 64), (129, 200), *more((127, 257), (160, 120))])
def test_odd_sizes_lose_no_pixel_and_get_no_bar_at_a_side(run, size, overlap):
    image = noise(1, *size, 3)
    assert torch.equal(run(image, "CoZFullImage", tile=128, overlap=overlap), repeat(image, 4))


@pytest.mark.parametrize("sides", [(1280, 1400, 2.0), *more((1900, 1900, 1.5))])
def test_nothing_turns_black_beyond_a_large_side(run, sides):
    height, width, scale = sides
    sr = run(torch.full((1, height, width, 3), 0.5), "CoZFullImage", 2, scale=scale, tile=1024)
    assert sr.shape == (1, round(height * scale), round(width * scale), 3)
    assert (sr - 0.5).abs().max() < 1e-6  # resampling weights sum to 1 up to rounding


@pytest.mark.parametrize(
    ("size", "passes"), [((769, 1025), 1), ((1, 1), 1), ((3, 700), 1), ((40, 5), 2), ((40, 1), 4)]
)
def test_a_photograph_of_odd_size_and_thin_strips_in_several_passes(run, size, passes):
    image = noise(1, *size, 3)
    sr = run(image, "CoZFullImage", 2, scale=2.0, passes=passes)
    assert torch.equal(sr, repeat(image, 2**passes))


@pytest.mark.parametrize("center", [(1, 0), *more((0.5, 0.5), (0, 0), (0, 1), (1, 1))], ids=str)
@pytest.mark.parametrize("scale", [4.0, 8.0])
def test_sixteen_steps_end_in_the_pixel_that_was_aimed_at(run, scale, center):
    image = noise(1, 70, 90, 3)
    place = {"center_x": center[0], "center_y": center[1]}
    chain = run(image, "CoZChainLoop", int(scale), scale=scale, steps=16, **place)
    x, y, width, height = chain.find_window_in(17, 0)
    assert (width, height) == (64 / scale**16, 64 / scale**16)
    assert x <= center[0] * 90 <= x + width
    assert y <= center[1] * 70 <= y + height
    assert chain.compute_magnification(17) == (scale**16, scale**16)
    for layer in range(2, 18):
        left, top, *sides = map(int, chain.windows[layer - 1])
        crop = chain.frames[layer - 1][..., top : top + sides[1], left : left + sides[0]]
        expected = repeat(crop.movedim(1, -1), int(scale)).movedim(-1, 1)
        assert torch.equal(chain.frames[layer], expected)
    column = min(int(center[0] * 90), 89)
    row = min(int(center[1] * 70), 69)
    assert torch.equal(chain.frames[17][0, :, 32, 32], image[0, row, column])


@pytest.mark.parametrize("factor", [1, 3, *more(2, 8)])
@pytest.mark.parametrize("scale", [1.61, 7.99, *more(1.5)])
def test_any_factor_and_scale_hold_the_target(run, factor, scale):
    place = {"center_x": 1, "center_y": 0.3}
    chain = run(noise(1, 70, 90, 3), "CoZChainLoop", factor, scale=scale, steps=3, **place)
    for layer in range(1, 5):
        x, y, width, height = chain.find_window_in(layer, 0)
        assert x <= 90 <= x + width + 1e-9
        assert y <= 0.3 * 70 <= y + height
        assert chain.frames[layer].shape == (1, 3, 64, 64)


def test_sixteen_bits_are_kept(run):
    image = (torch.arange(64 * 64 * 3).reshape(1, 64, 64, 3) * 5 + 3) / 65535
    assert torch.equal(run(image, "CoZChainLoop", steps=1).frames[0], image.movedim(-1, 1))
    assert torch.equal(run(image, "CoZFullImage"), repeat(image, 4))


@pytest.mark.parametrize(
    "prompt",
    ["{a|b} (c:1.2) embedding:d <lora:e:1>", "f" * 5000, "مرحبا שלום 你好 👍🏽"],
    ids=["syntax of other nodes", "5,000 characters", "scripts"],
)
def test_a_prompt_is_kept_as_it_is_written(executor, keep, prompt):
    executor("CLASSIC").run(kept_prompt(steps=1, prompt=prompt))
    assert keep[-1]["prompts"] == prompt


def test_each_picture_of_a_list_gets_its_own_strip_report_and_viewer(host, keep):
    prompt = chain_prompt(steps=1, image=("list", 0))
    prompt["batch"] = make_node("RepeatImageBatch", image=["source", 0], amount=3)
    prompt["list"] = make_node("RebatchImages", images=["batch", 0], batch_size=1)
    chain = {"chain": ["loop", 3]}
    prompt["strip"] = make_node("CoZZoomStrip", **chain | {"layout": "row", "labels": True})
    prompt["keep"] = make_node("TestKeep", image=["strip", 0])
    prompt["report"] = make_node("CoZMeasure", **chain)
    prompt["viewer"] = make_node("CoZZoomViewer", **chain)
    host.run(prompt, "keep")
    assert len(keep) == 3
    host.run(prompt, "report")
    assert len(host.ui("report")["text"]) == 3
    host.run(prompt, "viewer")
    assert len(host.ui("viewer")["coz_chain"]) == 3


FILMS = {(1, 1): (2, 2), (700, 5): (512, 4), (101, 1): (100, 2), (511, 511): (510, 510)}
FILMS |= {(63, 65): (62, 64)}
"""By the sides of a picture those of its video."""


@pytest.mark.parametrize("size", FILMS, ids=str)
@pytest.mark.parametrize("fps", [23.976, *more(1, 59.94, 120)])
def test_a_video_of_any_shape_and_rate(run, nodes_of, monkeypatch, tmp_path, size, fps):
    monkeypatch.setattr("folder_paths.get_temp_directory", lambda: str(tmp_path))
    video = nodes_of("view.zoom_video")
    chain = run(noise(1, *size, 3), "CoZChainLoop", steps=1, size=512)
    sides = video.choose_video_size(chain.frames[-1], 0, 0)
    assert sides == FILMS[size]
    zoom = ZoomVideo(chain, *sides)
    with torch.inference_mode():
        path = video.write_video(zoom.render_frames([0.0, 0.5, 1.0]), *sides, fps)
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert (stream.frames, stream.height, stream.width) == (3, *sides)
        assert float(stream.average_rate) == pytest.approx(fps, rel=1e-6)


@pytest.mark.parametrize("name", ["图片 & 100%.png", "a#b?c.png", "ümlaut [input].png"])
def test_any_file_name_is_loaded(executor, keep, input_folder, name):
    Image.new("RGB", (80, 70), (10, 20, 30)).save(input_folder / name)
    prompt = kept_prompt(steps=1)
    prompt["source"] = make_node("LoadImage", image=name)
    executor("CLASSIC").run(prompt)
    assert keep[-1]["chain"].frames[0].shape == (1, 3, 70, 80)
