"""PSNR, SSIM, sharpness and color drift: closed forms, and recorded results of two libraries."""

import json
import math

import pytest
import torch
import torch.nn.functional as F

from coz.fidelity.metrics import (
    ROWS_PER_BAND,
    compute_laplacian,
    measure_color_drift,
    measure_color_shift,
    measure_psnr,
    measure_sharpness,
    measure_ssim,
)
from tests.oracles.metrics import PAIRS
from tests.oracles.record import FOLDER
from tests.support.images import add_noise, blur, noise


@pytest.mark.parametrize("name", PAIRS)
def test_psnr_and_ssim_are_those_of_piq_and_torchmetrics(name):
    a, b = PAIRS[name]
    recorded = json.loads((FOLDER / "metrics.json").read_text("utf-8"))[name]
    assert measure_ssim(a, b) == pytest.approx(recorded["piq ssim"], abs=2e-6)
    assert measure_ssim(a, b) == pytest.approx(recorded["torchmetrics ssim"], abs=2e-6)
    assert measure_psnr(a, b) == pytest.approx(recorded["torchmetrics psnr"], abs=1e-4)
    if len(a) == 1:  # else piq's is the mean of each picture's own; it adds 1e-8 to the error
        assert measure_psnr(a, b) == pytest.approx(recorded["piq psnr"], abs=5e-3)


@pytest.mark.parametrize("offset", [1 / 255, 0.1, 0.5])
def test_psnr_of_a_constant_offset(offset):
    a = noise(1, 3, 100, 30) * 0.5
    assert measure_psnr(a, a + offset) == pytest.approx(-20 * math.log10(offset), abs=1e-3)


@pytest.mark.parametrize(("x", "y"), [(0.2, 0.6), (0.0, 1.0), (0.5, 0.5)])
def test_ssim_of_flat_pictures_is_its_brightness_term(x, y):
    a, b = torch.full((1, 3, 90, 40), x), torch.full((1, 3, 90, 40), y)
    assert measure_ssim(a, b) == pytest.approx(
        (2 * x * y + 1e-4) / (x * x + y * y + 1e-4), abs=2e-4
    )


def test_equal_pictures(photo):
    assert measure_psnr(photo, photo) == math.inf
    assert measure_ssim(photo, photo) == pytest.approx(1, abs=1e-7)
    assert measure_color_drift(photo, photo) == 0


def test_a_nan_is_not_hidden():
    a = noise(1, 3, 70, 20)
    b = a.clone()
    b[0, 1, 60, 3] = math.nan
    for compare in (measure_psnr, measure_ssim, measure_color_drift):
        assert math.isnan(compare(a, b))
    assert math.isnan(measure_sharpness(b))


@pytest.mark.parametrize("worse", [blur, add_noise])
def test_the_worse_the_lower(photo, worse):
    levels, sign = ([0.5, 1, 2, 4], 1) if worse is blur else ([0.01, 0.03, 0.1, 0.3], -1)
    pictures = [worse(photo, level) for level in levels]
    for measured in (
        [measure_psnr(photo, picture) for picture in pictures],
        [measure_ssim(photo, picture) for picture in pictures],
        [sign * measure_sharpness(picture) for picture in [photo, *pictures]],
    ):
        assert measured == sorted(measured, reverse=True)
        assert len(set(measured)) == len(measured)


def test_sharpness_of_noise_and_of_a_point():
    grey = 0.5 + 0.02 * torch.randn(1, 1, 512, 512, generator=torch.Generator().manual_seed(0))
    variance = 20 * (0.02 * 255) ** 2  # 4**2 + 4 * 1**2 = 20
    assert measure_sharpness(grey.expand(1, 3, -1, -1)) == pytest.approx(variance, rel=0.02)
    point = torch.zeros(1, 3, 102, 102)
    point[..., 1, 64, 50] = 1  # only green, on the border of two bands
    assert measure_sharpness(point) == pytest.approx(20 * (0.587 * 255) ** 2 / 100**2, rel=1e-5)


def test_sharpness_of_a_smooth_picture_is_not_below_0():
    y, x = torch.meshgrid(torch.arange(40), torch.arange(50), indexing="ij")
    bowls = [((x * x + y * y) / k).expand(1, 3, -1, -1) for k in range(5000, 5500, 10)]
    assert min(map(measure_sharpness, bowls)) >= 0
    assert max(map(measure_sharpness, bowls)) < 1e-6


@pytest.mark.parametrize(
    "height", [3, ROWS_PER_BAND, ROWS_PER_BAND + 1, ROWS_PER_BAND + 2, 2 * ROWS_PER_BAND + 3]
)
def test_sharpness_is_the_variance_of_the_laplacian(height):
    image = noise(1, 3, height, 40)
    expected = float(compute_laplacian(image).var(correction=0))
    assert measure_sharpness(image) == pytest.approx(expected, rel=1e-5)
    pair = torch.cat((image, torch.zeros_like(image)))
    assert measure_sharpness(pair) == pytest.approx(expected / 2)


def test_sharpness_does_not_see_a_flat_or_even_slope():
    assert measure_sharpness(torch.linspace(0, 1, 200).expand(1, 3, 90, 200)) < 1e-6
    assert measure_sharpness(torch.full((1, 3, 9, 9), 0.3)) == 0


def test_color_drift_is_that_of_the_channel_that_moved_most():
    lq = noise(1, 3, 16, 16) * 0.5
    sr = F.interpolate(lq, scale_factor=4) + torch.tensor([0.01, -0.04, 0.02]).view(1, 3, 1, 1)
    assert measure_color_shift(sr, lq).tolist() == pytest.approx([2.55, -10.2, 5.1], abs=1e-3)
    assert measure_color_drift(sr, lq) == pytest.approx(10.2, abs=1e-3)


def test_a_view_of_an_image_is_measured_alike():
    a, b = noise(1, 80, 60, 4), noise(1, 80, 60, 4, seed=1)
    a, b = (x[..., :3].movedim(-1, 1) for x in (a, b))
    assert measure_ssim(a, b) == measure_ssim(a.contiguous(), b.contiguous())
    assert measure_sharpness(a) == measure_sharpness(a.contiguous())


def test_pictures_of_two_sizes_are_refused():
    a, b = noise(1, 3, 20, 30), noise(1, 3, 20, 31)
    message = r"same shape, got \(1, 3, 20, 30\) and \(1, 3, 20, 31\)"
    for figure in (measure_psnr, measure_ssim):
        with pytest.raises(ValueError, match=message):
            figure(a, b)


def test_pictures_too_small_to_measure_are_refused():
    small = noise(1, 3, 40, 10)
    with pytest.raises(ValueError, match="windows of 11 x 11 pixels, and the images have 10 x 40"):
        measure_ssim(small, small)
    with pytest.raises(ValueError, match="at least 3 x 3 pixels, got 3 channels of 2 x 40"):
        measure_sharpness(small[..., :2])
    with pytest.raises(ValueError, match="and at least 3 x 3 pixels, got 1 channels"):
        measure_sharpness(small[:, :1])


def test_a_large_picture_takes_no_memory_of_its_size():
    a, b = noise(1, 3, 4096, 128), noise(1, 3, 4096, 128, seed=1)
    with torch.profiler.profile(profile_memory=True, acc_events=True) as profiled:
        measure_psnr(a, b), measure_ssim(a, b), measure_sharpness(a), measure_color_drift(a, b)
    largest = max(event.self_cpu_memory_usage for event in profiled.events())
    assert 0 < largest < a.nbytes / 5  # SSIM: five planes of a band
