import shutil
from functools import partial
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from coz import color_align, crop, resize
from tests.conftest import DATA
from tests.support.images import noise
from tools.host import ROOT

from .prompts import kept_prompt, make_node


def test_native_first_frame_is_the_sources_own_pixels(node):
    image = noise(1, 3000, 4000, 3)
    x_0, window, x, y = node("CoZFitImage").execute(image, "native pixels", 512, 0.25, 1.0).args
    assert window == {"x": 744, "y": 2488, "width": 512, "height": 512}
    assert torch.equal(x_0, image[:, 2488:3000, 744:1256])
    assert (x, y) == (0.5, 1.0)


def test_whole_picture_square_is_resized_and_cropped(node):
    image = noise(1, 96, 192, 3)
    x_0, window, *_ = node("CoZFitImage").execute(image, "whole picture square", 48, 0.5, 0.5).args
    assert x_0.shape == (1, 48, 48, 3)
    assert window == {"x": 48, "y": 0, "width": 96, "height": 96}


def test_crop_center_zoom(node):
    image = noise(2, 40, 64, 3)
    before = image.clone()
    made = node("CoZCropCenterZoom").execute(image, 4.0, 0.0, 0.5, "nearest")
    zoomed, crop, window, x, y = made.args
    assert window == {"x": 0, "y": 15, "width": 16, "height": 10}
    assert torch.equal(crop, image[:, 15:25, 0:16])
    assert torch.equal(zoomed, crop.repeat_interleave(4, 1).repeat_interleave(4, 2))
    assert (x, y) == (0.0, 0.5)
    assert torch.equal(image, before)


def test_a_mask_is_the_target(node):
    mask = torch.zeros(1, 20, 40)
    mask[0, 4, 30] = 1
    crop_zoom = partial(node("CoZCropCenterZoom").execute, noise(1, 200, 400, 3), 4.0)
    masked, typed = crop_zoom(0.5, 0.5, mask=mask), crop_zoom(30.5 / 40, 4.5 / 20)
    assert masked.args[3:] == pytest.approx(typed.args[3:], abs=1e-5)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(noise(1, 8, 8, 1), [0, 0, 0], id="grey is repeated"),
        pytest.param(noise(1, 8, 8, 2), [0, 0, 0], id="alpha of grey is dropped"),
        pytest.param(noise(1, 8, 8, 4), [0, 1, 2], id="alpha is dropped"),
        pytest.param(noise(1, 8, 8, 3).half(), [0, 1, 2], id="half becomes float32"),
        pytest.param(noise(1, 8, 8, 3) * 3 - 1, [0, 1, 2], id="values are clamped"),
    ],
)
def test_other_images_come_out_in_three_channels_of_float32(node, image, expected):
    before = image.clone()
    x_0 = node("CoZFitImage").execute(image, "native pixels", 16, 0.5, 0.5)[0]
    assert x_0.dtype == torch.float32
    assert torch.equal(x_0, before[..., expected].float().clamp(0, 1))
    assert torch.equal(image, before)


def test_values_are_clamped_before_they_are_resized(node):
    image = noise(1, 32, 32, 3) * 3 - 1
    crop_zoom = node("CoZCropCenterZoom").execute
    zoomed, expected = (crop_zoom(each, 4.0, 0.5, 0.5)[0] for each in (image, image.clamp(0, 1)))
    assert torch.equal(zoomed, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_counted(node, bad):
    image = noise(1, 8, 8, 3)
    image[0, 0, :2, 0] = bad
    with pytest.raises(ValueError, match="image holds 2 values that are NaN or infinite"):
        node("CoZFitImage").execute(image, "native pixels", 16, 0.5, 0.5)
    with pytest.raises(ValueError, match="reference holds 2 values"):
        node("CoZColorFix").execute(noise(1, 8, 8, 3), image, "adain")


@pytest.mark.parametrize(
    ("model_factor", "scale", "resampling"),
    [
        (4, 4.0, "bicubic"),
        (2, 4.0, "lanczos"),
        (4, 2.0, "bicubic"),
        (1, 8.0, "lanczos"),
        (4, 3.2, "bicubic"),
    ],
)
def test_upscale_step_fits_any_models_factor_to_the_frame(
    node, upscale_model, model_factor, scale, resampling
):
    zoomed, crop, *_ = node("CoZCropCenterZoom").execute(noise(1, 64, 96, 3), scale, 0.5, 0.5).args
    model = upscale_model(model_factor)
    sr = node("CoZUpscaleStep").execute(model, crop, zoomed, resampling)[0]
    assert sr.shape == (1, 64, 96, 3)
    raw = node("ImageUpscaleWithModel").execute(model, crop)[0]
    if raw.shape == sr.shape:
        assert torch.equal(sr, raw)


def test_color_fix(node):
    image, reference = noise(2, 32, 32, 3), noise(1, 16, 16, 3) * 0.5
    assert torch.equal(node("CoZColorFix").execute(image, reference, "none")[0], image)
    for method in ("wavelet", "adain", "histogram", "hybrid", "best"):
        fixed = node("CoZColorFix").execute(image, reference, method)[0]
        assert fixed.shape == image.shape
        # 0.05: what clamping to [0, 1] takes away.
        assert (fixed.mean((1, 2)) - reference.mean((1, 2))).abs().max() < 0.05


def test_color_fix_by_hybrid_weighs_wavelet_and_adain(node):
    image, reference = noise(1, 32, 32, 3) * 0.5, noise(1, 32, 32, 3).flip(1) * 0.5 + 0.1

    def fixed(method, **inputs):
        return node("CoZColorFix").execute(image, reference, method, **inputs)[0]

    assert torch.equal(fixed("hybrid", weight=0.0), fixed("wavelet"))
    assert torch.equal(fixed("hybrid", weight=1.0), fixed("adain"))
    assert torch.equal(fixed("hybrid"), fixed("hybrid", weight=0.5))
    with pytest.raises(ValueError, match="weight must be 0 to 1, got 2"):
        fixed("hybrid", weight=2.0)


def test_color_methods_are_the_same_everywhere_and_in_their_promised_order(node):
    promised = ["wavelet", "adain", "none", "ycbcr", "histogram", "hybrid", "best"]
    promised += ["ycbcr+wavelet+histogram"]
    for node_id, input_id in (("CoZColorFix", "method"), ("CoZChainLoop", "color_fix")):
        (combo,) = (i for i in node(node_id).GET_SCHEMA().inputs if i.id == input_id)
        assert combo.options == promised


def test_chain_loop_takes_every_color_method(host, keep):
    frames = {}
    for method in ("none", "ycbcr", "histogram", "hybrid", "best"):
        host.run(kept_prompt(steps=1, color_fix=method))
        chain = keep[-1]["chain"]
        frames[method] = chain.frames[2]
        zoomed = resize(crop(chain.frames[1], chain.windows[1]), 64, 64).clamp(0, 1)
        expected = color_align(method, frames["none"], zoomed).clamp(0, 1)
        torch.testing.assert_close(frames[method], expected, atol=1e-6, rtol=0)


def test_color_fix_wants_one_reference_or_as_many_as_images(node):
    for method in ("wavelet", "best"):
        with pytest.raises(ValueError, match="reference holds 2 images and image 3"):
            node("CoZColorFix").execute(noise(3, 8, 8, 3), noise(2, 8, 8, 3), method)


def soft_dot(peak, background=0.0):
    """A mask (1, 40, 60) with its greatest value at x 45.5, y 10.5, falling off around it."""
    y, x = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    distance = ((x - 45) ** 2 + (y - 10) ** 2).sqrt()
    return background + (peak - background) * (1 - distance / 6).clamp(min=0)[None]


@pytest.mark.parametrize(
    "mask",
    [
        torch.zeros(1, 64, 64),
        torch.full((1, 64, 64), -1.0),
        torch.zeros(64, 64, dtype=torch.bool),
        torch.full((1, 64, 64), 0.00005),
        torch.full((1, 64, 64), 1 / 65, dtype=torch.float16),
        0.004 + noise(1, 64, 64) / 513,
        torch.tensor([0.0, 0.00005, 0.0039, 1 / 65])[:, None, None].expand(4, 64, 64),
    ],
    ids=["zeros", "negative", "bool", "opaque GIF", "near 1/64", "rounding", "a batch"],
)
def test_a_mask_that_is_low_and_the_same_everywhere_is_none(nodes_of, node, caplog, mask):
    assert nodes_of("host.target").is_blank(mask)
    image = noise(1, 80, 120, 3)
    for node_id, inputs in (
        ("CoZFitImage", {"frame": "native pixels", "size": 16}),
        ("CoZCropCenterZoom", {"scale": 4.0}),
    ):
        caplog.clear()
        inputs |= {"image": image, "center_x": 0.1, "center_y": 0.3}
        typed = node(node_id).execute(**inputs).args
        assert not caplog.messages
        masked = node(node_id).execute(mask=mask, **inputs).args
        assert torch.equal(masked[0], typed[0])
        assert masked[-3:] == typed[-3:]
        (line,) = caplog.messages
        assert "mask is empty" in line
        assert "center_x and center_y are the target" in line


@pytest.mark.parametrize(
    ("mask", "target"),
    [
        (torch.full((1, 64, 64), 1 / 63), (0.5, 0.5)),
        (torch.ones(1, 64, 64), (0.5, 0.5)),
        (soft_dot(0.012), (45.5 / 60, 10.5 / 40)),
        (soft_dot(1 / 255), (45.5 / 60, 10.5 / 40)),
        (soft_dot(1.0, background=0.0039), (45.5 / 60, 10.5 / 40)),
        (soft_dot(1.0)[0], (45.5 / 60, 10.5 / 40)),
        (soft_dot(1.0)[None], (45.5 / 60, 10.5 / 40)),
        (soft_dot(1.0).half(), (45.5 / 60, 10.5 / 40)),
        (soft_dot(255.0), (45.5 / 60, 10.5 / 40)),
        (torch.ones(1, 1, 1), (0.5, 0.5)),
        (torch.eye(10)[:1].repeat_interleave(100, 1)[None], (0.05, 0.5)),
        (
            torch.cat((torch.full((1, 40, 60), 0.00005), soft_dot(1.0, background=0.0039))),
            (45.5 / 60, 10.5 / 40),
        ),
    ],
    ids=["1/63", "ones", "soft dot", "one step of 8 bits", "dot on 0.0039",
         "2 axes", "4 axes", "half precision", "0 to 255", "one pixel", "one row", "batch"],
)  # fmt: skip
def test_the_target_is_the_centre_of_what_a_mask_marks(nodes_of, caplog, mask, target):
    host = nodes_of("host.target")
    assert not host.is_blank(mask)
    assert host.resolve_target(0.1, 0.1, mask) == pytest.approx(target, abs=1e-5)
    assert not caplog.messages


def test_a_mask_without_a_background_is_taken_as_it_is(nodes_of):
    mask = noise(2, 20, 40)
    mask[:, 3, 5] = 0
    assert torch.equal(nodes_of("host.target").subtract_background(mask), mask)


@pytest.fixture
def loaded_target(executor, keeper, input_folder):
    """The target of First Frame for a picture file and its mask, both from the host's Load Image."""
    kept = keeper("TestKeepTarget", {"x": "FLOAT", "y": "FLOAT"})
    first = {"image": ["load", 0], "mask": ["load", 1], "frame": "whole picture", "size": 64}

    def load(name):
        prompt = {
            "load": make_node("LoadImage", image=name),
            "first": make_node("CoZFitImage", center_x=0.1, center_y=0.1, **first),
            "keep": make_node("TestKeepTarget", x=["first", 2], y=["first", 3]),
        }
        host = executor("CLASSIC")
        host.run(prompt, "keep")
        return (kept[-1]["x"], kept[-1]["y"]), host.told

    return load


@pytest.mark.parametrize("mode", ["RGB", "P", "P of bytes"])
def test_a_transparent_colour_of_a_png_is_the_target(loaded_target, tmp_path, mode):
    picture = Image.new("RGB", (400, 300), (200, 30, 30))
    picture.paste((0, 0, 255), (300, 30, 312, 42))
    transparent = (0, 0, 255)
    if mode != "RGB":
        picture = picture.quantize(2, dither=Image.Dither.NONE)
        transparent = picture.getpixel((305, 35))
        if mode == "P of bytes":
            transparent = bytes(0 if k == transparent else 255 for k in range(2))
    picture.save(tmp_path / "spot.png", transparency=transparent)
    target, told = loaded_target("spot.png")
    assert target == pytest.approx((306 / 400, 36 / 300), abs=1e-3)
    assert told == []


def test_the_mask_of_an_opaque_gif_is_none(loaded_target, tmp_path):
    shutil.copy(DATA / "opaque.gif", tmp_path)
    target, (told,) = loaded_target("opaque.gif")
    assert target == pytest.approx((0.1, 0.1), abs=1e-9)
    assert told.startswith("mask is empty")


@pytest.mark.parametrize("suffix", ["gif", "webp", "tga", "png"])
def test_a_transparent_spot_of_a_picture_is_the_target(loaded_target, tmp_path, suffix):
    picture = Image.new("RGBA", (400, 300), (200, 30, 30, 255))
    picture.paste((0, 0, 0, 0), (300, 30, 312, 42))
    picture.save(tmp_path / f"spot.{suffix}")
    target, told = loaded_target(f"spot.{suffix}")
    assert target == pytest.approx((306 / 400, 36 / 300), abs=1e-3)
    assert told == []


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (torch.full((1, 4, 4), torch.nan), "holds 16 values that are NaN or infinite"),
        (torch.full((1, 4, 4), torch.inf), "holds 16 values that are NaN or infinite"),
        (torch.rand(5), r"at least one pixel, got shape \(5,\)"),
        (torch.rand(1, 0, 4), r"at least one pixel, got shape \(1, 0, 4\)"),
    ],
    ids=["NaN", "infinite", "a row", "no pixel"],
)
def test_what_is_no_mask_is_named(node, mask, told):
    with pytest.raises(ValueError, match=f"^mask .*{told}"):
        node("CoZCropCenterZoom").execute(noise(1, 8, 8, 3), 4.0, 0.5, 0.5, "bicubic", mask)


def test_sample_pictures_are_the_files(node):
    names = node("CoZSamplePicture").GET_SCHEMA().inputs[0].options
    assert names
    for name in names:
        picture = node("CoZSamplePicture").execute(name)[0]
        with Image.open(ROOT / "pictures" / name) as file:
            if name == "rocket.jpg":  # in Adobe RGB
                profile = ImageCms.ImageCmsProfile(BytesIO(file.info["icc_profile"]))
                intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
                file = ImageCms.profileToProfile(
                    file, profile, ImageCms.createProfile("sRGB"), intent, "RGB"
                )
            pixels = np.array(file.convert("RGB"))
        assert torch.equal((picture[0] * 255).round().byte(), torch.from_numpy(pixels))


def test_builtin_models_are_listed_by_the_host(pack):
    import folder_paths

    listed = folder_paths.get_filename_list("upscale_models")
    shipped = sorted(path.name for path in (ROOT / "models").glob("*.safetensors"))
    assert shipped
    assert set(shipped) <= set(listed)
    assert not [name for name in listed if name.endswith((".md", ".jpg"))]


EASY = {"image": None, "layouts": [], "easy_tiles": "x", "limit": 0.2, "backbone": None}
INVERT = {"sampling_steps": 1, "start": "x", "cfg": 1.0, "seed": 0}
INVERT |= dict.fromkeys(("model", "vae", "positive", "negative", "crop", "zoomed", "adaptive"))


@pytest.mark.parametrize(
    ("function", "inputs", "message"),
    [
        ("host.control.choose_control", {"control_hint": "x"}, 'control_hint must be one of "zoom'),
        ("full_image.easy_tiles.plan_easy_tiles", EASY, 'easy_tiles must be one of "off"'),
        ("host.inversion.sharpen_by_inversion", INVERT, 'start must be one of "auto", "250"'),
    ],
)
def test_linked_values_that_are_no_option_are_refused(nodes_of, function, inputs, message):
    module, _, name = function.rpartition(".")
    with pytest.raises(ValueError, match=message):
        getattr(nodes_of(module), name)(**inputs)


def test_fusing_by_an_unknown_method_is_refused(node):
    images = torch.zeros(2, 4, 4, 3)
    for name in ("method", "map"):
        with pytest.raises(ValueError, match=f'{name} must be one of "[a-z]+", "[a-z]+", got "x"'):
            node("CoZFuse").execute(images, **{name: "x"})
