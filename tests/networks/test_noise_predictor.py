"""The noise predictor against results of InvSR's own code, on a network of reduced width."""

import json

import pytest
import torch
from safetensors.torch import load_file

from coz.networks.noise_predictor import (
    NoisePredictor,
    NoisePredictorSizes,
    encode_timesteps,
    read_sizes,
    sample_noise,
)
from tests.conftest import DATA
from tests.support.random_weights import relative_error

REDUCED = NoisePredictorSizes((32, 64), 3, 48, groups=8, head_width=16)
ROUNDING = 1e-5  # relative; other libraries sum float32 products in another order


@pytest.fixture(scope="module")
def golden():
    return load_file(DATA / "invsr/noise_predictor_golden.safetensors")


@pytest.fixture(scope="module")
def network():
    network = NoisePredictor(REDUCED)
    weights = load_file(DATA / "invsr/noise_predictor_reduced.safetensors")
    network.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return network.requires_grad_(False)


@pytest.mark.parametrize(
    ("image", "timestep", "moments"),
    [("lq", t, f"moments_t{t}") for t in (249, 199, 149, 99)]
    + [("lq_batch", 199, "moments_batch_t199"), ("lq_odd", 199, "moments_odd_t199")],
)
def test_moments_are_invsrs(network, golden, image, timestep, moments):
    assert relative_error(network(golden[image], timestep), golden[moments]) < ROUNDING


def test_noise_is_invsrs(golden):
    noise = sample_noise(golden["moments_t199"], golden["eps_t199"])
    assert relative_error(noise, golden["noise_t199"]) < ROUNDING


def test_extreme_log_variances_are_limited():
    moments = torch.tensor([0.0] * 4 + [-99, 99, -30, 20]).view(1, 8, 1, 1)
    noise = sample_noise(moments, torch.ones(1, 4, 1, 1)).flatten()
    assert noise.allclose(torch.tensor([-15.0, 10, -15, 10]).exp())


def test_published_layout_is_the_default():
    layout = json.loads((DATA / "invsr/noise_predictor_real_layout.json").read_text())
    weights = {name: torch.empty(shape, device="meta") for name, shape in layout.items()}
    assert read_sizes(weights) == NoisePredictorSizes()
    with torch.device("meta"):
        network = NoisePredictor(NoisePredictorSizes())
    assert {name: list(weight.shape) for name, weight in network.state_dict().items()} == layout


def test_sizes_are_read_from_weights():
    weights = load_file(DATA / "invsr/noise_predictor_reduced.safetensors")
    assert read_sizes(weights) == NoisePredictorSizes((32, 64), 3, 48)


def test_timesteps_are_encoded_cosines_first():
    encoded = encode_timesteps(torch.tensor([0.0, 2.0]), 4)
    slow = 2 * 10_000**-0.5
    assert encoded[0].tolist() == [1, 1, 0, 0]
    expected = torch.tensor([2.0, slow, 2.0, slow])
    assert encoded[1].allclose(torch.cat([expected[:2].cos(), expected[2:].sin()]))


def test_half_precision_stays_half_precision(network):
    half = NoisePredictor(REDUCED).half().requires_grad_(False)
    half.load_state_dict(network.state_dict())
    lq = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert half(lq.half(), 199).dtype == torch.float16
    # 0.01: eleven layers of values that are each rounded to 11 bits.
    assert relative_error(half(lq.half(), 199).float(), network(lq, 199)) < 0.01
