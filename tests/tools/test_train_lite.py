from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tools.train_lite import bars, data, faithful, losses
from tools.train_lite.net import CompactNet

MODELS = Path(__file__).resolve().parents[2] / "models"
FILES = ["coz_lite_x4.safetensors", "coz_lite_x4_texture.safetensors"]


def test_held_out_pictures_are_not_trained_on():
    assert not set(data.PHOTOGRAPHS) & set(data.HELD_OUT)


def failed(scores):
    return [score for score in scores if not score.passed]


@pytest.mark.parametrize("name", FILES)
def test_files_are_at_most_four_mebibytes(name):
    assert (MODELS / name).stat().st_size <= 4 * bars.MEGABYTE


def test_faithful_model_holds_its_bars():
    assert failed(bars.fidelity_scores(bars.load(MODELS / FILES[0]))) == []


def test_texture_model_holds_its_bars_on_every_chain():
    assert failed(bars.chain_scores(bars.load(MODELS / FILES[1]))) == []


def test_network_gives_what_spandrel_gives(tmp_path):
    net = CompactNet()
    path = tmp_path / "net.safetensors"
    faithful.save(net, path)
    lq = torch.rand(1, 3, 12, 20)
    assert torch.allclose(bars.load(path)(lq), net(lq).clamp(0, 1), atol=1e-5)


def test_laplacian_statistics_of_gaussian_noise_and_of_a_point():
    noise = 0.5 + 0.02 * torch.randn(1, 1, 512, 512).expand(1, 3, -1, -1)
    variance, kurtosis = bars.laplacian_statistics(noise)
    assert variance == pytest.approx(20 * (0.02 * 255) ** 2, rel=0.05)  # 4**2 + 4 * 1**2 = 20
    assert kurtosis == pytest.approx(3, abs=0.1)
    point = torch.zeros(1, 3, 32, 32)
    point[..., 16, 16] = 1
    assert bars.laplacian_statistics(point)[1] > 100


def test_bicubic_scores_as_the_issue_states():
    psnrs = []
    for name in data.HELD_OUT:
        hr = data.crop_to_multiple(data.picture(name))
        bicubic = data.reduced(hr).resize(hr.size, Image.Resampling.BICUBIC)
        psnrs.append(bars.psnr_inside(bicubic, hr, bars.BORDER))
    # the +1.48 dB network: 27.16, 27.79, 29.55, 38.87 dB
    assert np.mean(psnrs) == pytest.approx(np.mean([27.16, 27.79, 29.55, 38.87]) - 1.48, abs=0.05)


def test_grid_loss_sees_blocks_and_not_slopes():
    slope = torch.linspace(0, 1, 64).expand(1, 3, 64, 64).contiguous()
    blocks = slope[..., ::4].repeat_interleave(4, -1)
    assert losses.grid_loss(slope) < 0.1 < 1 < losses.grid_loss(blocks)


def test_lattice_sees_dots_of_either_sign_and_no_photograph():
    photograph = data.to_tensor(data.picture("gravel"))[None].float() / 255
    dots = torch.zeros_like(photograph)
    dots[..., ::4, ::4] = 0.2
    dots[..., :256] *= -1  # no mean over the picture
    plain, dotted = losses.repetition(photograph), losses.repetition(photograph + dots)
    assert plain[0] < 0.02 < 0.2 < dotted[0]
    assert 2 * plain[1] < dotted[1]


def test_local_tails_tell_pinholes_from_grain():
    grain = (0.5 + 0.02 * torch.randn(4, 1, 128, 128)).expand(-1, 3, -1, -1)
    strength = torch.tensor([0.1, 0.5, 1, 1.8]).repeat_interleave(32).view(1, 1, 1, 128)
    uneven = 0.5 + (grain - 0.5) * strength
    pinholes = 0.5 - 0.3 * (torch.rand(4, 1, 128, 128) < 0.01).float().expand(-1, 3, -1, -1)
    assert losses.texture_loss(uneven) < 0.5 * losses.texture_loss(pinholes)
