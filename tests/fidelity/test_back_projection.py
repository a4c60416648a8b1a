from math import inf, isnan, log10, nan

import numpy as np
import pytest
import torch
from PIL import Image

from coz.fidelity.back_projection import (
    back_project,
    describe_agreement,
    format_decibels,
    measure_agreement,
)
from coz.fidelity.banded_resize import make_resize_matrices, multiply_both_axes, resize_banded
from coz.resample import resize
from tests.support.images import noise, read_photo
from tests.test_resample import pillow
from tools.host import ROOT

KERNELS = ["bicubic", "area"]


def rms(x):
    return float(x.square().mean().sqrt())


def total_variation(x):
    return float(x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean())


def step(edge, side=128, blur=0.0):
    """A vertical edge from 0.2 to 0.8, sharp or of a Gaussian's shape."""
    x = torch.arange(side) + 0.5 - edge
    shape = torch.special.ndtr(x / blur) if blur else x.clamp(-0.5, 0.5) + 0.5
    return (0.2 + 0.6 * shape).expand(1, 3, side // 2, side).clone()


@pytest.mark.parametrize(
    ("size", "new"), [((30, 41), (11, 13)), ((64, 57), (16, 19)), ((100, 100), (95, 67)), ((9, 1), (3, 1)), ((16, 20), (61, 80))]
)  # fmt: skip
def test_bicubic_is_pillows(size, new):
    image = noise(2, 3, *size)
    expected = pillow(image, *new, Image.Resampling.BICUBIC)
    # 1e-6: float32 sums of up to 16 taps a side.
    torch.testing.assert_close(resize_banded(image, *new), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("big", "small"), [(12, 3), (7, 3), (9, 8), (5, 5), (70, 33)])
def test_area_is_the_mean_of_what_a_pixel_covers(big, small):
    image = noise(1, 2, big, big)
    fine = image.double().repeat_interleave(small, -1).repeat_interleave(small, -2)
    expected = torch.nn.functional.avg_pool2d(fine, big).float()
    found = resize_banded(image, small, small, "area")
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("new", [(8, 11), (30, 41), (17, 40)])
def test_the_way_back_is_the_adjoint(new):
    image = noise(1, 2, 30, 41).requires_grad_()
    small = noise(1, 2, *new, seed=1)
    resize(image, *new).backward(small)
    rows, columns = make_resize_matrices(image, *new, "bicubic")
    back = multiply_both_axes(rows.back, columns.back, small)
    torch.testing.assert_close(back, image.grad, atol=2e-6, rtol=0)
    there = multiply_both_axes(rows.down, columns.down, back)
    both = multiply_both_axes(rows.gram, columns.gram, small)
    torch.testing.assert_close(both, there, atol=2e-6, rtol=0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_agreement_is_the_psnr(kernel):
    lq = noise(2, 3, 16, 20) / 2
    sr = lq.repeat_interleave(4, -1).repeat_interleave(4, -2) + 0.25
    if kernel == "area":
        assert measure_agreement(sr, lq, kernel) == pytest.approx(-20 * log10(0.25), abs=1e-4)
    flat = torch.full((1, 3, 64, 80), 0.5)
    assert measure_agreement(flat, flat[..., :16, :20], kernel) > 120
    assert measure_agreement(flat + 0.1, flat[..., :16, :20], kernel) == pytest.approx(20, abs=1e-4)
    assert measure_agreement(sr.half(), lq, kernel) == pytest.approx(
        measure_agreement(sr, lq, kernel), abs=0.01
    )


def test_nan_is_no_agreement():
    image = noise(1, 3, 9, 7)
    broken = image.clone()
    broken[0, 0, 0, 0] = nan
    assert isnan(measure_agreement(broken, image))
    assert isnan(measure_agreement(image, broken))


def test_equal_pictures_agree_without_end():
    image = noise(1, 3, 9, 7)
    assert measure_agreement(image, image) == inf
    assert format_decibels(inf) == "over 99 dB"
    assert format_decibels(48.249) == "48.2 dB"


@pytest.mark.parametrize(
    ("db", "words"),
    [
        (inf, "repeats its input (over 99 dB)"),
        (40, "repeats its input (40.0 dB)"),
        (39.9, "is close to its input (39.9 dB)"),
        (30, "is close to its input (30.0 dB)"),
        (29.9, "departs from its input (29.9 dB)"),
        (20, "departs from its input (20.0 dB)"),
        (19.9, "contradicts its input (19.9 dB)"),
        (-1, "contradicts its input (-1.0 dB)"),
    ],
)
def test_agreement_is_said_in_words_first(db, words):
    assert describe_agreement(db) == words
    assert describe_agreement(db, "its source") == words.replace("its input", "its source")


@pytest.mark.parametrize("iterations", [1, 2, 10])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [1.2, 1.5, 2, 3.2, 4, 8])
@pytest.mark.parametrize("size", [(96, 128), (61, 103)])
def test_at_full_strength_at_most_a_thousandth_of_error_is_left(size, factor, kernel, iterations):
    lq = noise(1, 3, *(round(side / factor) for side in size), seed=1)
    result = back_project(noise(1, 3, *size), lq, 1.0, iterations, kernel)
    assert rms(resize_banded(result, *lq.shape[-2:], kernel) - lq) < 1e-4


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 2), (16, 1)])
@pytest.mark.parametrize("small", [(1, 1), (1, 2), (3, 1)])
def test_tiny_pictures(shape, small):
    small = min(shape[0], small[0]), min(shape[1], small[1])
    lq = noise(1, 3, *small, seed=1)
    result = back_project(noise(1, 3, *shape), lq)
    assert rms(resize_banded(result, *small) - lq) < 1e-4


def test_one_iteration_makes_the_smallest_change():
    sr, lq = noise(1, 1, 16, 12), noise(1, 1, 4, 5, seed=1)
    unit = torch.eye(16 * 12).reshape(-1, 1, 16, 12)
    matrix = resize_banded(unit, 4, 5).flatten(1).T.double().numpy()
    error = (lq - resize_banded(sr, 4, 5)).flatten().double().numpy()
    least = np.linalg.lstsq(matrix, error)[0]  # of the least norm where there are many
    change = (back_project(sr, lq, iterations=1) - sr).flatten().numpy()
    np.testing.assert_allclose(change, least, atol=1e-5)


def test_the_source_itself_where_the_size_is_the_same():
    sr, lq = noise(1, 3, 20, 30), noise(1, 3, 20, 30, seed=1)
    torch.testing.assert_close(back_project(sr, lq), lq, atol=1e-6, rtol=0)


def test_strength_is_the_part_of_the_change():
    sr, lq = noise(1, 3, 32, 32), noise(1, 3, 8, 8, seed=1)
    whole = back_project(sr, lq) - sr
    assert torch.equal(back_project(sr, lq, 0.0), sr)
    torch.testing.assert_close(back_project(sr, lq, 0.25) - sr, whole / 4, atol=1e-6, rtol=0)


def test_a_true_picture_stays_as_it_is():
    sr = noise(1, 3, 64, 64)
    torch.testing.assert_close(back_project(sr, resize(sr, 16, 16)), sr, atol=2e-6, rtol=0)


def test_each_picture_of_a_batch_is_corrected_by_itself():
    sr, lq = noise(3, 3, 32, 40), noise(3, 3, 8, 10, seed=1)
    together = back_project(sr, lq)
    for k in range(3):
        alone = back_project(sr[k : k + 1], lq[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, atol=1e-5, rtol=0)
    shared = back_project(sr, lq[:1])
    torch.testing.assert_close(shared, back_project(sr, lq[:1].expand_as(lq)), atol=0, rtol=0)


def test_channels_last_is_the_same():
    sr, lq = noise(1, 32, 40, 3).movedim(-1, 1), noise(1, 8, 10, 3, seed=1).movedim(-1, 1)
    dense = back_project(sr.contiguous(), lq.contiguous())
    torch.testing.assert_close(back_project(sr, lq), dense, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "guess",
    [
        pytest.param(step(65), id="an edge one pixel aside"),
        pytest.param(step(66), id="an edge two pixels aside"),
        pytest.param(step(64, blur=2), id="a blurred edge"),
    ],
)
def test_edges_ring_less_than_with_the_smallest_change(guess):
    truth = step(64)
    lq = resize(truth, 16, 32)
    rung = back_project(guess, lq, iterations=1)
    result = back_project(guess, lq)

    def overshoot(x):
        return max(float(x.max()) - 0.8, 0.2 - float(x.min()))

    assert overshoot(result) < overshoot(rung) * 0.6
    # The edge alone has the variation of the truth; a consistent picture of it need have no more.
    assert total_variation(result) < 1.25 * total_variation(truth)
    assert rms(result - truth) < rms(rung - truth) / 2 < rms(guess - truth)


@pytest.mark.parametrize("picture", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
@pytest.mark.parametrize("network", ["coz_lite_x4", "coz_lite_x4_texture"])
def test_photographs_ring_no_more_than_before(picture, network):
    from spandrel import ModelLoader

    truth = read_photo(picture)[..., :256, :256]
    lq = resize(truth, 64, 64).clamp(0, 1)
    model = ModelLoader().load_from_file(ROOT / "models" / f"{network}.safetensors")
    with torch.inference_mode():
        sr = model(lq).clamp(0, 1)
    result = back_project(sr, lq)
    assert measure_agreement(result.clamp(0, 1), lq) > measure_agreement(sr, lq) + 10
    # 1.2: the sharper edges that the source demands; the truth's is up to 2.8 times as large.
    assert total_variation(result) < 1.2 * total_variation(sr)
    assert rms(result - truth) < rms(sr - truth)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((noise(1, 3, 8, 8), noise(1, 3, 8, 9)), "the source is 9 x 8 pixels and the image 8 x 8"),
        ((noise(1, 3, 8, 8), noise(1, 1, 4, 4)), "1 images of 1 channels and the image 1 of 3"),
        ((noise(3, 3, 8, 8), noise(2, 3, 4, 4)), "2 images of 3 channels and the image 3 of 3"),
        ((noise(1, 3, 8, 8), noise(1, 3, 4, 4), 1.5), "strength must be 0 to 1, got 1.5"),
        ((noise(1, 3, 8, 8), noise(1, 3, 4, 4), 1, 0), "iterations must be at least 1, got 0"),
        ((noise(1, 3, 8, 8), noise(1, 3, 4, 4), 1, 1, "lanczos"), "one of bicubic, area, got lanczos"),
    ],
)  # fmt: skip
def test_errors_say_what_to_connect(arguments, message):
    with pytest.raises(ValueError, match=message):
        back_project(*arguments)
