"""What the arms are given: x_0 and the ground truth of a picture."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from coz.render.pillow import from_pillow
from coz.resample import resize
from tools.evaluate.inputs import Protocol, find_images, make_inputs
from tools.evaluate.job import crop_truth
from tools.image_file import ImageError, open_image

from .jobs import noise


def opened(file):
    return np.asarray(Image.open(io.BytesIO(file)))


def test_folders_below_are_searched_hidden_files_and_the_result_are_not(folder):
    out = folder / "out"
    for name in ("sub/a.png", "sub/A.JPG", ".hidden.png", ".folder/x.png", "out/x.png", "b.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert find_images(folder, out) == (["a.png", "sub/A.JPG", "sub/a.png"], ["b.txt"])
    assert find_images(folder / "a.png", out) == (["a.png"], [])


def test_x_0_is_the_square_in_the_middle_resized_as_pillow_does(folder):
    soft = noise(700, 600).point(lambda value: 64 + value / 2)  # Pillow clips between its passes
    soft.save(folder / "a.png")
    x_0, truth = make_inputs(folder, "a.png", Protocol(4))
    assert truth is None
    picture = opened(x_0)
    assert picture.shape == (512, 512, 3)
    # The reference: the short side becomes 512, then the middle is cut out.
    whole = soft.resize((700 * 512 // 600, 512), Image.LANCZOS)
    other = np.asarray(whole)[:, (whole.width - 512) // 2 :][:, :512].astype(int)
    assert np.abs(picture - other).max() <= 1  # and rounds there


def test_a_picture_on_its_side_is_turned(folder):
    upright = noise(100, 80)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.rotate(90, expand=True).save(folder / "turned.png", exif=exif)
    upright.save(folder / "upright.png")
    turned, plain = (make_inputs(folder, f"{n}.png", Protocol(4)) for n in ("turned", "upright"))
    assert turned == plain


def test_deep_and_transparent_pictures(folder):
    grey, rgba = noise(80, 80, "L"), noise(80, 80, "RGBA")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    for one, other in ((deep, grey), (rgba, rgba.convert("RGB"))):
        one.save(folder / "one.png")
        other.save(folder / "other.png")
        made, plain = (make_inputs(folder, f"{n}.png", Protocol(4)) for n in ("one", "other"))
        assert made == plain


@pytest.mark.parametrize("kind", ["AVIF", "DDS"])
def test_a_damaged_file_is_no_picture_or_another_one(kind, tmp_path):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip("this Pillow has no such kind")
    whole = io.BytesIO()
    noise(24, 20).save(whole, kind)
    chance = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = np.frombuffer(whole.getvalue(), np.uint8).copy()
        damaged[chance.integers(0, min(len(damaged), 300), 3)] = chance.integers(0, 256, 3)
        (tmp_path / "damaged").write_bytes(damaged.tobytes())
        try:
            assert open_image(tmp_path / "damaged").mode == "RGB"
        except ImageError:
            refused += 1
    assert refused


def test_scaled_down_the_picture_is_its_own_ground_truth(folder):
    x_0, truth = make_inputs(folder, "a.png", Protocol(1, scale_down=4))
    # 600 / 4 = 150 pixels, and whole multiples of 16.
    assert opened(x_0).shape == (144, 144, 3)
    own = np.asarray(Image.open(folder / "a.png"))[12:588, 60:636]
    assert np.abs(opened(truth).astype(int)[:, 2:-2] - own[:, :-4]).min() == 0
    assert opened(truth).shape == (576, 576, 3)
    small = resize(from_pillow(Image.fromarray(opened(truth))), 144, 144)
    assert (from_pillow(Image.fromarray(opened(x_0))) - small.clamp(0, 1)).abs().max() < 0.51 / 255


def test_a_ground_truth_is_cut_like_its_picture(folder, tmp_path):
    truths = tmp_path / "truths"
    (truths / "sub").mkdir(parents=True)
    full = noise(4 * 130, 4 * 90)
    full.save(truths / "sub" / "b.tif")
    full.reduce(4).save(folder / "sub" / "b.png")
    x_0, truth = make_inputs(folder, "sub/b.png", Protocol(1, ground_truth=truths))
    small, large = opened(x_0), opened(truth)
    assert (small.shape, large.shape) == ((80, 80, 3), (320, 320, 3))
    assert np.array_equal(small, np.asarray(Image.fromarray(large).reduce(4)))
    assert np.array_equal(small, np.asarray(full.reduce(4))[5:85, 25:105])


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("a.png", (2800, 2399), "its ground truth is 2800 x 2399 and the image 700 x 600"),
        ("a.png", (2400, 2400), "it must be 4, 5, 6, ... times as wide and as high"),
        ("a.png", (1400, 1200), "such as 2800 x 2400"),
        ("b.png", (2800, 2400), r"there is no ground truth a.png in .*, with any suffix"),
    ],
)
def test_a_ground_truth_that_does_not_fit(name, size, message, folder, tmp_path):
    truths = tmp_path / "truths"
    truths.mkdir()
    Image.new("RGB", size).save(truths / name)
    with pytest.raises(ImageError, match=message):
        make_inputs(folder, "a.png", Protocol(1, ground_truth=truths))


def test_a_picture_too_small_for_its_steps_is_told_its_least_size(folder):
    with pytest.raises(ImageError, match="--scale-down 16 with 3 steps needs 2048 pixels a side"):
        make_inputs(folder, "a.png", Protocol(3, scale_down=16))


def test_the_view_of_a_ground_truth():
    truth = torch.rand(1, 3, 64, 64)
    assert torch.equal(crop_truth(truth, 4, 16), truth[..., 24:40, 24:40])
    assert crop_truth(truth, 16, 16) is None
