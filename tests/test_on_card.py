"""Every function of tensors: it leaves them as they are, computes half floats in float32, and gives on
a simulated card the values of the CPU with few waits for the card."""

import pytest
import torch

from coz.color.method import best_align, color_align
from coz.ensemble import self_ensemble
from coz.fidelity.back_projection import agreement, back_project
from coz.fidelity.banded_resize import resize_banded
from coz.fidelity.invented import (
    map_disagreement,
    map_invented,
    measure_invented_area,
    measure_invented_energy,
    measure_octaves,
)
from coz.fidelity.metrics import color_drift, psnr, sharpness, ssim
from coz.geometry import Window
from coz.render.heat_map import lay_over
from coz.resample import crop_mirrored, resize
from coz.tiles.complexity import rate_complexity

CASES = {
    "resize": (0, lambda a, b, lq: resize(a, 70, 50)),
    "resize by lanczos": (0, lambda a, b, lq: resize(lq, 200, 96, "lanczos")),
    "resize a box": (0, lambda a, b, lq: resize(a, 9, 9, box=Window(0.5, 1.25, 20, 30))),
    "nearest": (0, lambda a, b, lq: resize(lq, 200, 96, "nearest")),
    "mirror": (0, lambda a, b, lq: crop_mirrored(a, Window(-9, 150, 120, 80))),
    "banded resize": (0, lambda a, b, lq: resize_banded(a, 50, 24)),
    "no method": (0, lambda a, b, lq: color_align("none", a, b)),
    "wavelet": (0, lambda a, b, lq: color_align("wavelet", a, b)),
    "adain": (0, lambda a, b, lq: color_align("adain", a, b)),
    "ycbcr": (0, lambda a, b, lq: color_align("ycbcr", a, b)),
    "hybrid": (0, lambda a, b, lq: color_align("hybrid", a, b)),
    "histogram": (12, lambda a, b, lq: color_align("histogram", a, b)),  # 2 a plane
    "best": (13, lambda a, b, lq: best_align(a, b)),  # of which histogram 12
    "self-ensemble": (0, lambda a, b, lq: self_ensemble(lambda x: x.square(), a)),
    "psnr": (1, lambda a, b, lq: psnr(a, b)),
    "ssim": (1, lambda a, b, lq: ssim(a, b)),
    "sharpness": (1, lambda a, b, lq: sharpness(a)),
    "colour drift": (1, lambda a, b, lq: color_drift(a, lq)),
    "agreement": (1, lambda a, b, lq: agreement(a, lq)),
    "invented": (1, lambda a, b, lq: measure_invented_energy(a, b)),
    "octaves": (7, lambda a, b, lq: measure_octaves(a, b)),  # 1 a size, and 1 for all
    "invented map": (0, lambda a, b, lq: map_invented(a, b)),
    "invented area": (1, lambda a, b, lq: measure_invented_area(map_invented(a, b))),
    "disagreement": (0, lambda a, b, lq: map_disagreement([a, b])),
    "heat": (0, lambda a, b, lq: lay_over(a, map_invented(a, b))),
    "complexity": (27, lambda a, b, lq: rate_complexity(a[:1])),  # 2 a row and 3
    "back-projection": (3, lambda a, b, lq: back_project(a, lq)),
}
"""Function -> how often it may wait, and its call: ``a`` and ``b`` are twice 200 x 96 pixels, which are
several bands of rows, and ``lq`` is 50 x 24."""


@pytest.fixture(params=[torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
def mode(request):
    return request.param


def picture(seed, height, width):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def plain(value):
    """Tensors on the CPU."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.cpu().tolist() if isinstance(value, torch.Tensor) else value


def pictures(dtype=torch.float32):
    sizes = ((200, 96), (200, 96), (50, 24))
    return [picture(seed, *size).to(dtype) for seed, size in enumerate(sizes)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name", sorted(CASES.keys() - {"self-ensemble"})
)  # whose network computes in its own
def test_half_floats_are_computed_in_float32_and_stay_as_they_are(name, dtype):
    _, call = CASES[name]
    given, kept = pictures(dtype), pictures(dtype)
    assert plain(call(*given)) == plain(call(*(each.float() for each in kept)))
    assert all(map(torch.equal, given, kept))


@pytest.mark.parametrize(("most", "call"), CASES.values(), ids=CASES.keys())
def test_the_cpus_values_with_few_waits(mode, most, call):
    # Not at the top: it makes a device for the whole process.
    from tests.support.simulated_card import Card

    with mode():
        want = plain(call(*pictures()))
        with Card() as card:
            result = call(*map(card.put, pictures()))
            waits = card.work.waits
            if isinstance(result, torch.Tensor):
                assert result.device == card.device
            assert plain(result) == want
    assert waits <= most
