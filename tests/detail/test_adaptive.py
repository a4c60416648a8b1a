"""The adaptive features against the study's own results where it is right, and closed forms."""

import json

import pytest
import torch
from safetensors import safe_open

from coz.detail import adaptive
from tests.conftest import DATA

with safe_open(DATA / "invsr/additions_golden.safetensors", "pt") as file:
    NUMBERS = json.loads(file.metadata()["numbers"])


@pytest.mark.parametrize("case", NUMBERS["timesteps"])
def test_timesteps_are_the_studys(case):
    steps, complexity = case.split(",")
    starts = {1: [200], 2: [200, 100], 3: [200, 100, 50], 4: [200, 150, 100, 50]}
    timesteps = starts.get(int(steps), [250, 200, 150, 100, 50])
    assert adaptive.adapt_timesteps(timesteps, float(complexity)) == NUMBERS["timesteps"][case]


@pytest.mark.parametrize("case", NUMBERS["guidance"])
def test_guidance_is_the_studys(case):
    found = adaptive.adapt_guidance(*map(float, case.split(",")))
    assert found == pytest.approx(NUMBERS["guidance"][case], rel=1e-12)


def test_denoise_follows_the_complexity_up_to_1():
    flat = torch.full((1, 3, 32, 32), 0.5)
    stripes = torch.tensor([0.0, 0, 1, 1]).repeat(8).expand(1, 3, 32, 32)  # 0.825, as below
    views = torch.cat([flat, stripes])
    (calm, low), (busy, high) = adaptive.adapt_denoise(views, 0.5)
    assert torch.equal(torch.cat([calm, busy]), views)
    assert low == 0.4
    assert high == pytest.approx(0.5 * (1 + 0.3 * 0.225 / 0.4), abs=1e-6)
    assert adaptive.adapt_denoise(views, 0.9)[1][1] == 1
    with pytest.raises(ValueError, match=r"denoise must be 0 to 1, got 1\.5"):
        adaptive.adapt_denoise(views, 1.5)


@pytest.mark.parametrize("gray", [0, 0.5, 1])
@pytest.mark.parametrize("size", [(1, 1), (8, 1), (32, 40)])
def test_a_flat_view_is_simple(gray, size):
    assert adaptive.score_complexity(torch.full((2, 3, *size), gray)) == [0, 0]


def test_complexity_has_four_measures():
    # Columns of 0 and 1 in turn: variance 1/4 and every slope except the border's saturate three
    # measures; two equally frequent levels have an entropy of one bit of eight.
    stripes = torch.tensor([0.0, 0, 1, 1]).repeat(8).expand(1, 3, 32, 32)
    assert adaptive.score_complexity(stripes) == [pytest.approx(0.8 + 0.2 / 8, abs=1e-6)]


def test_each_view_of_a_batch_has_its_own_score():
    noise = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    alone = adaptive.score_complexity(noise)
    assert adaptive.score_complexity(torch.cat([noise, noise * 0])) == [*alone, 0]


def test_a_step_has_a_gradient_of_four():
    step = torch.tensor([0.0, 0, 1, 1]).expand(1, 1, 4, 4)
    assert adaptive.compute_gradient(step)[0, 0, 0].tolist() == [0, 4, 4, 0]
