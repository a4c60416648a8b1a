"""Real-ESRGAN's degradation against closed forms."""

import io
from itertools import product
from math import cos, pi, radians, sin

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.special import j1
from skimage import data as samples

from coz.render.pillow import from_pillow, to_pillow
from tools.image_file import encode
from tools.train_sr import degradation
from tools.train_sr.degradation import (
    FINAL_SINC_PROB,
    REAL_ESRGAN,
    add_gaussian_noise,
    add_poisson_noise,
    blur,
    compress,
    degrade,
    draw_kernel,
    reduce_and_enlarge,
)
from tools.train_sr.kernels import make_bell_kernel, make_sinc_kernel

SIGMAS, ANGLE = (3.0, 1.2), radians(30)


@pytest.fixture(scope="module")
def photo():
    return from_pillow(Image.fromarray(samples.astronaut()).resize((128, 96)))[0]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def grid(size):
    line = np.arange(size) - size // 2
    return np.meshgrid(line, line)


@pytest.mark.parametrize("size", [7, 21])
@pytest.mark.parametrize("cutoff", [pi / 5, 2.0, pi])
def test_sinc_is_the_impulse_response_of_a_round_low_pass(cutoff, size):
    radius = np.hypot(*grid(size))
    with np.errstate(invalid="ignore"):
        expected = cutoff * j1(cutoff * radius) / (2 * pi * radius)
    expected[size // 2, size // 2] = cutoff**2 / (4 * pi)
    kernel = make_sinc_kernel(cutoff, size).numpy()
    assert kernel == pytest.approx(expected / expected.sum(), rel=1e-6, abs=1e-8)


def distance(size):
    """q of SIGMAS turned by ANGLE, from the covariance matrix."""
    turn = np.array([[cos(ANGLE), -sin(ANGLE)], [sin(ANGLE), cos(ANGLE)]])
    inverse = np.linalg.inv(turn @ np.diag(np.square(SIGMAS)) @ turn.T)
    places = np.stack(grid(size), -1)
    return np.einsum("hwi,ij,hwj->hw", places, inverse, places)


@pytest.mark.parametrize(
    ("shape", "beta", "form"),
    [
        ("gaussian", 1, lambda q: np.exp(-q / 2)),
        ("generalized", 0.6, lambda q: np.exp(-(q**0.6) / 2)),
        ("generalized", 3.5, lambda q: np.exp(-(q**3.5) / 2)),
        ("plateau", 1.7, lambda q: 1 / (1 + q**1.7)),
    ],
)
def test_bells_have_their_form(shape, beta, form):
    kernel = make_bell_kernel(shape, 15, *SIGMAS, ANGLE, beta).numpy()
    expected = form(distance(15))
    assert kernel == pytest.approx(expected / expected.sum(), rel=1e-6, abs=1e-8)


def test_a_kernel_is_longer_along_its_first_axis():
    kernel = make_bell_kernel("gaussian", 21, 4, 1, ANGLE)
    y, x = 10 + round(6 * sin(ANGLE)), 10 + round(6 * cos(ANGLE))
    assert kernel[y, x] > 10 * kernel[20 - y, x]


def test_kernels_are_drawn_as_upstream_draws_them(monkeypatch, rng):
    sincs, bells = [], []
    monkeypatch.setattr(degradation, "make_sinc_kernel", lambda *drawn: sincs.append(drawn))
    monkeypatch.setattr(degradation, "make_bell_kernel", lambda *drawn: bells.append(drawn))
    for _ in range(10_000):
        draw_kernel(REAL_ESRGAN[0], rng)
    assert len(sincs) / 10_000 == pytest.approx(0.1, abs=0.01)
    assert all((pi / 3 if size < 13 else pi / 5) <= cutoff <= pi for cutoff, size in sincs)
    sizes = np.array([size for _, size, *_ in bells])
    found = [np.mean(sizes == n).round(2) for n in range(7, 22, 2)]
    assert found == pytest.approx([1 / 8] * 8, abs=0.015)
    counts = {}
    for shape, _, x, y, angle, beta in bells:
        assert 0.2 <= min(x, y) <= max(x, y) <= 3
        assert -pi <= angle <= pi
        assert (angle == 0) == (x == y)
        counts.setdefault((shape, x == y), []).append(beta)
    shares = {key: len(betas) / len(bells) for key, betas in counts.items()}
    kinds = product(("gaussian", "generalized", "plateau"), (True, False))
    expected = dict(zip(kinds, (0.45, 0.25, 0.12, 0.03, 0.12, 0.03), strict=True))
    assert shares == pytest.approx(expected, abs=0.015)
    betas = np.array(counts["generalized", True])
    assert 0.5 <= betas.min() < betas.max() <= 4
    assert np.mean(betas < 1) == pytest.approx(0.5, abs=0.06)
    betas = np.array(counts["plateau", True])
    assert 1 == betas.min() < betas.max() <= 2
    assert np.mean(betas == 1) == pytest.approx(0.5, abs=0.06)


def test_the_values_are_upstreams():
    """Those of params_realesrgan.yml, of the first and the second degradation."""
    shapes = product(("", "generalized_", "plateau_"), ("iso", "aniso"))
    both = {
        "blur_prob": (1, 0.8),
        "blur_sigma": ((0.2, 3), (0.2, 1.5)),
        "resize_prob": ((0.2, 0.7, 0.1), (0.3, 0.4, 0.3)),
        "resize_range": ((0.15, 1.5), (0.3, 1.2)),
        "noise_range": ((1, 30), (1, 25)),
        "poisson_scale_range": ((0.05, 3.0), (0.05, 2.5)),
        "betag_range": ((0.5, 4),) * 2,
        "betap_range": ((1, 2),) * 2,
        "kernel_list": (tuple(map("".join, shapes)),) * 2,
        "kernel_prob": ((0.45, 0.25, 0.12, 0.03, 0.12, 0.03),) * 2,
        "sinc_prob": (0.1,) * 2,
        "gaussian_noise_prob": (0.5,) * 2,
        "gray_noise_prob": (0.4,) * 2,
        "jpeg_range": ((30, 95),) * 2,
    }
    for stage, values in zip(REAL_ESRGAN, zip(*both.values(), strict=True), strict=True):
        assert stage._asdict() == dict(zip(both, values, strict=True))
    assert FINAL_SINC_PROB == 0.8


@pytest.mark.parametrize("size", [7, 21])
def test_blur_is_the_sum_of_reflected_neighbors(photo, size):
    kernel = make_bell_kernel("plateau", size, 2.5, 1, 0.3, 1.5)
    padded = F.pad(photo[:, None], (size // 2,) * 4, "reflect")
    expected = F.conv2d(padded, kernel[None, None])[:, 0]
    torch.testing.assert_close(blur(photo, kernel), expected, atol=2e-6, rtol=0)


def test_gaussian_noise_has_its_sigma(rng):
    noise = add_gaussian_noise(torch.full((3, 200, 200), 0.5), 20, False, rng) - 0.5
    assert noise.std() * 255 == pytest.approx(20, rel=0.01)
    assert abs(np.corrcoef(noise.flatten(1))[0, 1]) < 0.02


def test_shot_noise_is_the_square_root_of_the_photons(rng):
    """Values 0 to 255 once each: 256 photons of white, so that the variance of v is v / 256."""
    levels = torch.arange(256) / 255
    image = levels.expand(3, 2000, 256).contiguous()
    noise = (add_poisson_noise(image, 0.5, False, rng) - image)[..., 40:216]
    expected = 0.5 * (levels[40:216] / 256).sqrt()
    torch.testing.assert_close(noise.std((0, 1)), expected, rtol=0.06, atol=0)
    assert noise.mean((0, 1)).abs().max() < 2e-3


def test_shot_noise_counts_values_of_the_image(rng):
    """Three values, rounded up to four photons of white, so that white becomes n / 4, cut at 1."""
    image = torch.ones(3, 100, 100)
    image[:, 0, :50], image[:, 0, 50:] = 0, 0.5
    noisy = add_poisson_noise(image, 1, False, rng)[:, 1:]
    assert noisy.unique().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert (noisy == 0).float().mean() == pytest.approx(np.exp(-4), abs=0.003)


@pytest.mark.parametrize("add", [add_gaussian_noise, add_poisson_noise])
def test_gray_noise_is_one_for_all_channels(photo, rng, add):
    calm = 0.4 + 0.2 * photo
    noise = add(calm, 0.5, True, rng) - calm
    assert noise.std() > 1e-4
    torch.testing.assert_close(noise[0], noise[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(noise[0], noise[2], atol=1e-6, rtol=0)
    apart = add(calm, 0.5, False, rng) - calm
    assert (apart[0] - apart[1]).abs().max() > 1e-3


def test_jpeg_is_pillows(photo):
    file = encode(to_pillow(photo[None]), "jpeg", quality=30)
    with Image.open(io.BytesIO(file)) as expected:
        assert torch.equal(compress(photo, 30.4), from_pillow(expected)[0])


def in_both_stages(**changes):
    return tuple(stage._replace(**changes) for stage in REAL_ESRGAN)


def test_a_gray_plane_without_noise_stays_as_it_is():
    """Kernels sum to 1, resizing keeps a constant, and edges are reflected, in each of 40 draws."""
    values = in_both_stages(gaussian_noise_prob=1, noise_range=(0, 0))
    plane = torch.full((3, 96, 128), 128 / 255)
    for seed in range(40):
        assert torch.equal(degrade(plane, np.random.default_rng(seed), values), plane)


def test_keep_leaves_the_size(photo, monkeypatch):
    sizes = []
    resize = degradation.resize

    def note(image, size, kind):
        sizes.append((tuple(image.shape[1:]), tuple(int(side) for side in size)))
        return resize(image, size, kind)

    monkeypatch.setattr(degradation, "resize", note)
    degrade(photo, np.random.default_rng(0), in_both_stages(resize_prob=(0, 0, 1)))
    whole, small = (96, 128), (24, 32)
    assert sizes == [(whole, whole), (whole, small), (small, small), (small, whole)]


@pytest.mark.parametrize("side", [512, 64])
def test_results_are_8_bit_images_of_the_same_size(photo, side):
    image = photo.new_zeros(3, side, side) + F.interpolate(photo[None], (side, side))[0]
    for seed in range(6):
        low = degrade(image, np.random.default_rng(seed))
        assert low.shape == image.shape
        assert low.dtype == torch.float32
        assert 0 <= low.min() < low.max() <= 1
        assert torch.equal((low * 255).round() / 255, low)


def test_a_seed_gives_one_result(photo):
    first, again, other = (degrade(photo, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.01


def test_4x_is_pillows_bicubic_down_and_up(photo):
    small = to_pillow(photo[None]).resize((32, 24), Image.Resampling.BICUBIC)
    expected = small.resize((128, 96), Image.Resampling.BICUBIC)
    assert to_pillow(reduce_and_enlarge(photo)[None]) == expected
