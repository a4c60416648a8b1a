"""Upscale models and the pixels around what they enlarge, in the host's own node."""

import gc
import json
import weakref
from itertools import product

import pytest
import torch
import torch.nn.functional as F

from coz.geometry import Window
from coz.resample import resize
from coz.tiles.plan import plan_tiles
from coz.tiles.reach import Reach
from tests.support.images import noise

from .prompts import REACHES_PIXELS, more


@pytest.fixture
def surroundings(nodes_of):
    return nodes_of("host.surroundings")


@pytest.fixture(scope="module")
def texture(node):
    return node("UpscaleModelLoader").execute("coz_lite_x4_texture.safetensors")[0]


@pytest.fixture
def swinir(load_upscale_model):
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(0)
    sizes = {"depths": [2, 2], "num_heads": [2, 2], "embed_dim": 16, "img_size": 32}
    network = SwinIR(window_size=8, upscale=4, upsampler="pixelshuffle", **sizes)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "attn" in name and weight.ndim > 1:
                weight.mul_(12)  # random weights hardly attend to anything
    return load_upscale_model("swinir", network)


def mirrored_result(node, model, image, margin):
    """(B, H * s, W * s, 3) of the host's node on the image, mirrored at its edges."""
    padded = F.pad(image.movedim(-1, 1), [margin] * 4, mode="reflect").movedim(1, -1)
    with torch.inference_mode():
        sr = node("ImageUpscaleWithModel").execute(model, padded)[0]
    cut = margin * model.scale
    return sr[:, cut:-cut, cut:-cut]


def step(node, model, frame, scale, center, **inputs):
    """The step of Chain Loop on its views: (the result, the window)."""
    zoomed, crop, window, *_ = node("CoZCropCenterZoom").execute(frame, scale, *center).args
    around = {"image": frame, "window": window} | inputs
    with torch.inference_mode():
        return node("CoZUpscaleStep").execute(model, crop, zoomed, **around)[0], window


@pytest.mark.parametrize(("name", "reach"), REACHES_PIXELS.items())
def test_reach_of_the_built_in_models(node, surroundings, name, reach):
    model = node("UpscaleModelLoader").execute(name)[0]
    assert surroundings.get_reach(model) == Reach(reach, False)


def test_attention_in_windows_is_noticed(surroundings, swinir):
    assert surroundings.get_reach(swinir).is_periodic


def test_it_is_measured_once_for_a_model_and_not_longer_kept(
    node, surroundings, upscale_model, monkeypatch
):
    model = upscale_model(4)
    monkeypatch.setattr(surroundings, "_reaches", weakref.WeakKeyDictionary())
    calls = []
    handle = model.model.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape))
    assert surroundings.get_reach(model) == surroundings.get_reach(model) == Reach(8, False)
    ensemble = node("CoZSelfEnsemble").execute(model)[0]
    assert surroundings.get_reach(ensemble) == Reach(8, False)
    # Flat and textured, whole and cut.
    assert calls == [(1, 3, 32, 96)] * 2 + [(1, 3, 32, 83)] * 2
    handle.remove()
    kept = weakref.ref(model)
    del model, ensemble, handle
    gc.collect()
    assert kept() is None
    assert len(surroundings._reaches) == 0


@pytest.fixture
def fail_once():
    failures = [torch.OutOfMemoryError("injected")]

    def fail(*_):
        if failures:
            raise failures.pop()

    return fail


@pytest.mark.parametrize("place", ["model", "resize"])
def test_a_lack_of_memory_while_measuring_is_not_kept(
    surroundings, upscale_model, before, fail_once, place
):
    model = upscale_model(8)
    if place == "resize":
        before(surroundings, "measure_reach", fail_once)
    with model.model.register_forward_pre_hook(fail_once):
        assert surroundings.get_reach(model) == Reach(16, False)
        assert surroundings.get_reach(model) == Reach(8, False)


@pytest.mark.parametrize("fault", ["error", "nan"])
def test_a_model_that_cannot_be_measured_gets_a_default(surroundings, upscale_model, caplog, fault):
    model = upscale_model(2)

    def fail(_module, _args, output):
        if fault == "error":
            raise IndexError("a strip of 32 pixels is too small")
        return output * float("nan")

    with model.model.register_forward_hook(fail):
        assert surroundings.get_reach(model) == Reach(16, False)
        assert surroundings.get_reach(model) == Reach(16, False)
    (told,) = caplog.messages
    assert "Could not measure how many pixels around a tile affect the upscale model" in told
    assert "It gets 16 pixels around each tile" in told


def test_an_interrupt_of_the_measurement_is_none_of_its_failures(surroundings, upscale_model, mm):
    model = upscale_model(1)

    def interrupt(*_):
        raise mm.InterruptProcessingException

    with model.model.register_forward_pre_hook(interrupt):
        with pytest.raises(mm.InterruptProcessingException):
            surroundings.get_reach(model)
    assert surroundings.get_reach(model) == Reach(8, False)


@pytest.mark.parametrize("center", [(0.5, 0.5), (0, 0), (1, 0), (0, 1), (1, 1), (0.02, 0.6)])
def test_a_step_is_cut_out_of_the_enlarged_frame(node, texture, center):
    frame = node("CoZSamplePicture").execute("chelsea.png")[0][:, 60:188, 100:244].contiguous()
    sr, window = step(node, texture, frame, 4.0, center)
    x, y, width, height = (4 * window[key] for key in ("x", "y", "width", "height"))
    expected = mirrored_result(node, texture, frame, 16)[:, y : y + height, x : x + width]
    assert sr.shape == frame.shape == expected.shape
    # 16 pixels around it are all that the texture model looks at.
    assert (sr - expected).abs().max() < 0.5 / 255


@pytest.mark.parametrize("center", [(0.5, 0.5), (1, 1), *more((0, 0), (1, 0.5))])
@pytest.mark.parametrize("color", [(0.35, 0.55, 0.78), *more((0.5, 0.5, 0.5))])
def test_a_flat_colour_gets_no_lines_at_its_edges(node, texture, center, color):
    frame = torch.tensor(color).expand(1, 512, 512, 3).contiguous()
    for _ in range(2):
        frame, _ = step(node, texture, frame, 4.0, center)
        error = (frame - torch.tensor(color)).abs().amax(-1)[0]
        inside = error[100:-100, 100:-100].max()
        error[100:-100, 100:-100] = 0
        assert error.max() <= 1.2 * inside + 1 / 255


SOME_FACTORS = {1: 1.5, 2: 3.2, 3: 4.0, 4: 8.0, 8: 4.0}


@pytest.mark.parametrize(
    ("model_factor", "scale"),
    [
        pytest.param(*pair, marks=() if pair in SOME_FACTORS.items() else pytest.mark.long)
        for pair in product((1, 2, 3, 4, 8), (1.5, 3.2, 4.0, 8.0))
    ],
)
def test_any_factor_is_resized_from_the_window(node, upscale_model, model_factor, scale):
    model, frame = upscale_model(model_factor), noise(1, 48, 64, 3)
    sr, window = step(node, model, frame, scale, (0.1, 0.7), resampling="lanczos")
    whole = mirrored_result(node, model, frame, 16)
    x, y, width, height = (model_factor * window[key] for key in ("x", "y", "width", "height"))
    part = whole[:, y : y + height, x : x + width].movedim(-1, 1)
    expected = resize(part, 48, 64, "lanczos").movedim(1, -1).clamp(0, 1)
    # A margin of 8 pixels, of a network that looks 4 pixels far.
    torch.testing.assert_close(sr, expected, rtol=0, atol=1e-5)


def test_batches_and_single_pixels(node, upscale_model):
    model = upscale_model(4)
    frames = noise(3, 40, 30, 3)
    together, _ = step(node, model, frames, 4.0, (0.4, 0.4))
    for i in range(3):
        alone, _ = step(node, model, frames[i : i + 1], 4.0, (0.4, 0.4))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)
    pixel, _ = step(node, model, noise(1, 1, 1, 3), 4.0, (0.5, 0.5))
    assert pixel.shape == (1, 1, 1, 3)


def test_without_frame_and_window_the_bytes_are_those_of_the_crop_alone(node, texture):
    frame = noise(1, 64, 64, 3)
    sr, _ = step(node, texture, frame, 4.0, (0.3, 0.3), image=None, window=None)
    crop = node("CoZCropCenterZoom").execute(frame, 4.0, 0.3, 0.3)[1]
    with torch.inference_mode():
        assert torch.equal(sr, node("ImageUpscaleWithModel").execute(texture, crop)[0])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": None}, "^window is connected, but image is not: connect both"),
        ({"window": None}, "^image is connected, but window is not: connect both"),
        ({"image": noise(1, 32, 32, 3)}, r"at \(24, 24\), and image is 32 x 32 \(batch of 1\)"),
        (
            {"image": noise(2, 64, 64, 3)},
            r"crop is 16 x 16 pixels \(batch of 1\), .* image is 64 x 64 \(batch of 2\)",
        ),
        ({"window": {"x": -1, "y": 0, "width": 16, "height": 16}}, r"16 x 16 at \(-1, 0\)"),
        ({"window": {"x": 0, "y": 0, "width": 8, "height": 16}}, "window is 8 x 16 at"),
        ({"window": {"x": 24.6, "y": 0, "width": 16, "height": 16}}, "box of whole pixels"),
        ({"window": {"x": 24}}, r"window must be one box .* got \{'x': 24\}"),
        ({"window": [{"x": 24}]}, "window must be one box"),
    ],
)
def test_what_does_not_belong_together_is_refused(node, upscale_model, inputs, message):
    with pytest.raises(ValueError, match=message):
        step(node, upscale_model(4), noise(1, 64, 64, 3), 4.0, (0.5, 0.5), **inputs)


def in_tiles(node, model, image, tile, color_fix="none", consistency=0.0):
    """One pass of Full-Image SR at 4x."""
    layout = plan_tiles(*image.shape[1:3], 4.0, tile, tile // 4)
    chosen = {"backbone": "upscale model", "upscale_model": model, "resampling": "bicubic"}
    inputs = image, "", 1, json.dumps(layout), chosen, 0, color_fix, consistency, image
    with torch.inference_mode():
        return node("CoZTiles").execute(*inputs)[0]


def scene(node, name):
    if name == "photograph":
        return node("CoZSamplePicture").execute("chelsea.png")[0][:, 60:156, 100:212].contiguous()
    ramp = torch.linspace(0.1, 0.9, 112).expand(96, 112)
    return torch.stack((ramp, ramp.flip(1), ramp / 2), -1)[None]


@pytest.mark.parametrize("picture", ["gradient", "photograph"])
@pytest.mark.parametrize(
    ("color_fix", "consistency", "levels"),
    # What back-projection changes reaches a little beyond the 32 pixels that it is computed with.
    [("none", 0.0, 0.5), ("wavelet", 0.0, 0.5), ("ycbcr", 0.5, 2.5)],
)
def test_tiles_are_those_of_the_whole_picture(
    node, texture, picture, color_fix, consistency, levels
):
    image = scene(node, picture)
    whole = in_tiles(node, texture, image, 4096, color_fix, consistency)
    tiles = in_tiles(node, texture, image, 256, color_fix, consistency)
    assert whole.shape == (1, 384, 448, 3)
    assert (tiles - whole).abs().max() < levels / 255


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_tiles_of_other_factors_are_those_of_the_whole_picture(node, upscale_model, factor):
    image = scene(node, "photograph")
    model = node("CoZSelfEnsemble").execute(upscale_model(factor))[0]
    whole, tiles = (in_tiles(node, model, image, tile, "wavelet") for tile in (4096, 256))
    assert (tiles - whole).abs().max() < 0.5 / 255


@pytest.mark.parametrize("name", ["model", pytest.param("ensemble", marks=pytest.mark.long)])
def test_tiles_of_windowed_attention_are_those_of_the_whole_picture(node, swinir, name):
    image = node("CoZSamplePicture").execute("chelsea.png")[0][:, 60:160, 100:216].contiguous()
    model = swinir if name == "model" else node("CoZSelfEnsemble").execute(swinir)[0]
    whole, tiles = (in_tiles(node, model, image, tile) for tile in (4096, 256))
    assert (tiles - whole).abs().max() < 0.5 / 255
    # Two tiles a side begin at 200 of 400 rows and at 232 of 464 columns.
    for axis, border in ((1, 200), (2, 232)):
        edges = (sr.narrow(axis, border - 1, 2).diff(dim=axis) for sr in (tiles, whole))
        found, expected = (float(edge.abs().mean()) for edge in edges)
        assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("scale", [1.52, 1.61, 2.56, 3.2, 4.0, 7.96])
def test_the_tile_that_a_notice_names_is_large_enough(nodes_of, texture, scale, caplog):
    def notes(tile):
        layout = plan_tiles(700, 900, scale, tile, tile // 4)
        chosen = {"backbone": "upscale model", "upscale_model": texture}
        picture = torch.zeros(1, 3, 700, 900)
        caplog.clear()
        tiles = nodes_of("backbones.backbone").TilePass(picture, layout, [], ring=0, seed=0)
        nodes_of("backbones").make_backbone(chosen).start_pass(tiles)
        return caplog.messages

    (note,) = notes(64)
    assert note.startswith("The upscale model needs 16 pixels around a tile, but tiles of 6")
    named = int(note.split("Raise tile to ")[1])
    assert named % 16 == 0
    assert notes(named) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 4), (3, 200)])
def test_pictures_smaller_than_the_margin(node, texture, shape):
    image = noise(1, *shape, 3)
    for tile in (64, 512):
        sr = in_tiles(node, texture, image, tile, "wavelet", 1.0)
        assert sr.shape == (1, 4 * shape[0], 4 * shape[1], 3)
        small = resize(sr.movedim(-1, 1), *shape).movedim(1, -1)
        # What consistency promises, up to what the clamp at 0 and 1 takes away.
        assert (small - image).abs().mean() < 0.05


@pytest.mark.parametrize("margin", [0, 8, 64])
def test_no_region_is_larger_than_the_hosts_tiles(
    surroundings, upscale_model, upscale_node, before, margin
):
    regions = []
    before(upscale_node, "execute", lambda _, image: regions.append(image.shape[1:3]))
    model, image = upscale_model(2), noise(1, 3, 700, 1100)
    window = Window(3, 5, 1090, 690)
    with torch.inference_mode():
        sr = surroundings.WindowUpscaler(model, margin)(image, window)
    assert max(max(region) for region in regions) <= 512
    assert len(regions) == 2 * 3
    with torch.inference_mode():
        whole = model(image).clamp(0, 1)
    difference = (sr - whole[..., 10:1390, 6:2186]).abs()[..., 16:-16, 16:-16].amax()
    assert (difference > 0.01) if margin == 0 else (difference < 0.25 / 255)


def test_regions_of_attention_begin_on_multiples_of_32(surroundings, swinir, before):
    image = noise(1, 3, 80, 130)
    seen = []
    before(surroundings, "crop_mirrored", lambda image, window: seen.append(window))
    whole = surroundings.WindowUpscaler(swinir, 16, is_periodic=True)
    parts = surroundings.WindowUpscaler(swinir, 16, is_periodic=True)
    parts.max_region = 96
    window = Window(0, 0, 130, 80)
    with torch.inference_mode():
        expected, found = whole(image, window), parts(image, window)
    assert len(seen) == 1 + 2 * 4
    assert all(side % 32 == 0 for region in seen for side in region)
    assert max(max(region[2:]) for region in seen[1:]) <= 96
    # What reaches beyond the margin is less than one value in 255.
    assert (found - expected).abs().max() < 1 / 255


@pytest.mark.parametrize("name", ["model", "ensemble"])
def test_out_of_memory_in_the_network_makes_no_tiles_without_surroundings(
    node, surroundings, upscale_model, name, caplog
):
    plain = upscale_model(4)
    model = plain if name == "model" else node("CoZSelfEnsemble").execute(plain)[0]
    image, window, seen = noise(1, 3, 240, 200), Window(0, 0, 200, 240), []

    def short_of_memory(_, args):
        seen.append(tuple(args[0].shape[-2:]))
        if max(seen[-1]) > 140:
            raise torch.OutOfMemoryError("injected")

    with torch.inference_mode():
        expected = surroundings.WindowUpscaler(model, 8)(image, window)
        with plain.model.register_forward_pre_hook(short_of_memory):
            upscaler = surroundings.WindowUpscaler(model, 8)
            found = upscaler(image, window)
            first = len(seen)
            assert torch.equal(upscaler(image, window), found)
    # Once too large; the second window is enlarged in small parts from the start.
    assert [max(region) > 140 for region in seen].count(True) == 1
    assert len(seen) - first == first - 1
    told = "Out of memory: from here on the model enlarges at most 128 x 128 pixels at once"
    assert caplog.messages == [told]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_a_passing_lack_of_memory_changes_nothing(surroundings, upscale_model, fail_once, caplog):
    model, image = upscale_model(4), noise(1, 3, 30, 30)
    with torch.inference_mode():
        expected = surroundings.WindowUpscaler(model, 8)(image, Window(8, 8, 16, 16))
        with model.model.register_forward_pre_hook(fail_once):
            upscaler = surroundings.WindowUpscaler(model, 8)
            assert torch.equal(upscaler(image, Window(8, 8, 16, 16)), expected)
    assert caplog.messages == []


def test_a_failed_attempt_is_gone_before_the_next(surroundings, upscale_model):
    model, attempts = upscale_model(4), []

    class Activation:
        """What a network holds while it runs."""

    def fail_twice(*_):
        held = Activation()
        assert [attempt for attempt in attempts if attempt() is not None] == []
        attempts.append(weakref.ref(held))
        if len(attempts) < 3:
            raise torch.OutOfMemoryError("injected")

    with model.model.register_forward_pre_hook(fail_twice):
        with torch.inference_mode():
            surroundings.WindowUpscaler(model, 8)(noise(1, 3, 300, 300), Window(0, 0, 300, 300))
    assert len(attempts) >= 3


def test_memory_that_never_suffices_ends_with_its_own_error(surroundings, upscale_model):
    model = upscale_model(4)

    def fail(*_):
        raise torch.OutOfMemoryError("injected")

    with model.model.register_forward_pre_hook(fail):
        with pytest.raises(torch.OutOfMemoryError, match="injected"), torch.inference_mode():
            surroundings.WindowUpscaler(model, 32)(noise(1, 3, 300, 300), Window(0, 0, 300, 300))
