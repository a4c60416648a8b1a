import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from coz.geometry import Target, Window, place_first_frame, place_window
from coz.resample import crop, crop_mirrored, resize
from tests.conftest import DATA

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}


def pillow(image: torch.Tensor, height: int, width: int, filter_: int, box=None) -> torch.Tensor:
    planes = [
        np.array(Image.fromarray(plane.numpy()).resize((width, height), filter_, box=box))
        for plane in image.flatten(0, 1)
    ]
    return torch.from_numpy(np.stack(planes)).reshape(*image.shape[:2], height, width)


@pytest.mark.parametrize("resampling", FILTERS)
@pytest.mark.parametrize(
    ("height", "width", "new_height", "new_width"),
    [(30, 41, 64, 57), (64, 57, 10, 9), (128, 128, 512, 512), (300, 7, 11, 70), (1, 1, 5, 4)],
)
def test_equals_pillow_on_floats(height, width, new_height, new_width, resampling):
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 3 - 1
    expected = pillow(image, new_height, new_width, FILTERS[resampling])
    found = resize(image, new_height, new_width, resampling)
    # 4e-6: float32 sums of up to 40 taps of values up to 2.
    torch.testing.assert_close(found, expected, atol=4e-6, rtol=0)


@pytest.mark.parametrize("resampling", [*FILTERS, "nearest"])
def test_box_equals_pillow(resampling):
    image = torch.rand(1, 2, 60, 80, generator=torch.Generator().manual_seed(1))
    box = (10.3, 12.7, 70.4, 42.6)
    expected = pillow(image, 33, 47, FILTERS.get(resampling, Image.Resampling.NEAREST), box)
    window = Window(box[0], box[1], box[2] - box[0], box[3] - box[1])
    # 4e-6: Pillow computes the box in float32, where its edges are rounded at 1e-6.
    got = resize(image, 33, 47, resampling, window)
    torch.testing.assert_close(got, expected, atol=4e-6, rtol=0)


@pytest.mark.parametrize("case", range(3))
def test_first_frame_and_zoom_equal_the_reference(case):
    golden = load_file(DATA / "crop_center_zoom.safetensors")
    image, first, cropped, zoomed = (
        golden[f"{case}.{name}"].permute(2, 0, 1)[None].float()
        for name in ("image", "first", "crop", "zoomed")
    )
    frame = place_first_frame(*image.shape[-2:], 96, "whole picture square", Target(0.5, 0.5))
    got = resize(image, frame.height, frame.width, "lanczos", frame.window).clamp(0, 255)
    assert got.shape == first.shape
    # The reference rounds to 8 bits, and Pillow's 8-bit path clips between its two passes.
    assert (got - first).abs().mean() <= 0.4
    assert (got - first).abs().max() <= 16
    assert torch.equal(crop(first, place_window(96, 96, 4, Target(0.5, 0.5))), cropped)
    got = resize(cropped, 96, 96).clamp(0, 255)
    assert (got - zoomed).abs().mean() <= 0.4
    assert (got - zoomed).abs().max() <= 16


def test_own_size_is_the_image_itself():
    image = torch.rand(1, 3, 5, 7)
    assert torch.equal(resize(image, 5, 7), image)


def test_flat_stays_flat():
    flat = torch.full((1, 1, 9, 13), 0.3)
    for resampling in ("bicubic", "lanczos", "nearest"):
        resized = resize(flat, 40, 3, resampling)
        torch.testing.assert_close(resized, torch.full_like(resized, 0.3))


@pytest.mark.parametrize("resampling", ["bicubic", "lanczos", "nearest"])
def test_a_box_that_rounding_pushed_over_an_edge_is_taken(resampling):
    image = torch.rand(1, 3, 8, 9)
    exact = resize(image, 8, 10, resampling, Window(0, 4, 5, 4))
    for beyond in (-1e-9, 1e-9):
        pushed = resize(image, 8, 10, resampling, Window(-1e-9, 4 + beyond, 5, 4))
        torch.testing.assert_close(pushed, exact)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "at least 1 x 1, got 5 x 0"),
        ((5, 5, "bicubic", Window(0, 0, 9, 4)), "does not lie inside an image of 8 x 8"),
        ((5, 5, "bicubic", Window(-1, 0, 4, 4)), "does not lie inside an image of 8 x 8"),
        ((5, 5, "bicubic", Window(0, 0, 0, 4)), "does not lie inside an image of 8 x 8"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        resize(torch.rand(1, 1, 8, 8), *arguments)


@pytest.mark.parametrize("window", [(-3, -2, 9, 8), (2, 1, 8, 6), (-4, 0, 13, 5), (1, 1, 3, 2)])
def test_a_crop_beyond_the_image_is_mirrored_at_its_edges(window):
    image = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(2))
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4), mode="reflect")
    x, y, width, height = window
    expected = padded[..., y + 4 : y + 4 + height, x + 4 : x + 4 + width]
    assert torch.equal(crop_mirrored(image, Window(*window)), expected)


def test_a_small_image_is_mirrored_as_often_as_it_takes():
    row = torch.tensor([0.0, 1.0, 2.0]).view(1, 1, 1, 3)
    found = crop_mirrored(row, Window(-5, -2, 12, 4))
    assert found.shape == (1, 1, 4, 12)
    assert found[0, 0, 3].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    pixel = torch.full((1, 3, 1, 1), 0.3)
    assert torch.equal(crop_mirrored(pixel, Window(-7, -9, 20, 21)), pixel.expand(1, 3, 21, 20))


def test_a_crop_inside_the_image_is_a_view():
    image = torch.rand(1, 3, 5, 6)
    assert crop_mirrored(image, Window(1, 0, 5, 5)).data_ptr() == image[..., 1:].data_ptr()
