"""Every function of tensors: it leaves them as they are, computes half floats in float32, and gives on
a simulated card the values of the CPU with few waits for the card."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from coz.color.method import BEST_CANDIDATES, best_align, color_align
from coz.detail.adaptive import score_complexity
from coz.detail.fusion import fuse, sharpen_edges
from coz.ensemble import self_ensemble
from coz.fidelity.back_projection import back_project, measure_agreement
from coz.fidelity.banded_resize import forbid_tf32, resize_banded
from coz.fidelity.invented import (
    map_disagreement,
    map_invented,
    measure_invented_area,
    measure_invented_energy,
    measure_octaves,
)
from coz.fidelity.metrics import measure_color_drift, measure_psnr, measure_sharpness, measure_ssim
from coz.geometry import Window
from coz.inversion import enlarge_unclamped
from coz.render.heat_map import overlay_heat
from coz.render.zoom_video import ZoomVideo
from coz.resample import crop_mirrored, resize
from coz.tiles.complexity import rate_complexity
from tests.support.images import noise

CASES = {
    "resize": (0, lambda a, b, lq: resize(a, 70, 50)),
    "resize by lanczos": (0, lambda a, b, lq: resize(lq, 200, 96, "lanczos")),
    "resize a box": (0, lambda a, b, lq: resize(a, 9, 9, box=Window(0.5, 1.25, 20, 30))),
    "nearest": (0, lambda a, b, lq: resize(lq, 200, 96, "nearest")),
    "mirror": (0, lambda a, b, lq: crop_mirrored(a, Window(-9, 150, 120, 80))),
    "banded resize": (0, lambda a, b, lq: resize_banded(a, 50, 24)),
    **{name: (0, lambda a, b, lq, name=name: color_align(name, a, b)) for name in BEST_CANDIDATES},
    "best": (1, lambda a, b, lq: best_align(a, b)),
    "self-ensemble": (0, lambda a, b, lq: self_ensemble(lambda x: x.square(), a)),
    "psnr": (1, lambda a, b, lq: measure_psnr(a, b)),
    "ssim": (1, lambda a, b, lq: measure_ssim(a, b)),
    "sharpness": (1, lambda a, b, lq: measure_sharpness(a)),
    "color drift": (1, lambda a, b, lq: measure_color_drift(a, lq)),
    "agreement": (1, lambda a, b, lq: measure_agreement(a, lq)),
    "invented": (1, lambda a, b, lq: measure_invented_energy(a, b)),
    "octaves": (1, lambda a, b, lq: measure_octaves(a, b)),
    "invented map": (0, lambda a, b, lq: map_invented(a, b)),
    "invented area": (1, lambda a, b, lq: measure_invented_area(map_invented(a, b))),
    "disagreement": (0, lambda a, b, lq: map_disagreement([a, b])),
    "heat": (0, lambda a, b, lq: overlay_heat(a, map_invented(a, b))),
    "complexity": (1, lambda a, b, lq: rate_complexity(a[:1])),
    "unclamped": (0, lambda a, b, lq: enlarge_unclamped(lq)),
    "score": (5, lambda a, b, lq: score_complexity(a)),  # 2 a view and 1
    "fuse": (0, lambda a, b, lq: fuse(a, "weighted", "variance")),
    "edges": (0, lambda a, b, lq: sharpen_edges(a, 0.3)),
    "back-projection": (4, lambda a, b, lq: back_project(a, lq)),  # 2 an image
}
"""Function -> how often it may wait, and its call: ``a`` and ``b`` are twice 200 x 96 pixels, which are
several bands of rows, and ``lq`` is 50 x 24."""


@pytest.fixture(params=[torch.no_grad, torch.inference_mode], ids=lambda mode: mode.__name__)
def mode(request):
    return request.param


def use_card(**options):
    # Not at the top: it makes a device for the whole process.
    from tests.support.simulated_card import Card

    return Card(**options)


def picture(seed, height, width):
    return noise(2, 3, height, width, seed=seed)


def plain(value):
    """Tensors on the CPU."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value.cpu().tolist() if isinstance(value, torch.Tensor) else value


def pictures(dtype=torch.float32):
    sizes = ((200, 96), (200, 96), (50, 24))
    return [picture(seed, *size).to(dtype) for seed, size in enumerate(sizes)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
# The network of a self-ensemble computes in its own.
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"self-ensemble"}))
def test_half_floats_are_computed_in_float32_and_stay_as_they_are(name, dtype):
    _, call = CASES[name]
    given, kept = pictures(dtype), pictures(dtype)
    assert plain(call(*given)) == plain(call(*(each.float() for each in kept)))
    assert all(map(torch.equal, given, kept))


@pytest.mark.parametrize(("most", "call"), CASES.values(), ids=CASES.keys())
def test_the_cpus_values_with_few_waits(mode, most, call):
    with mode():
        want = plain(call(*pictures()))
        with use_card(has_float64=False) as card:  # as Apple's GPUs
            result = call(*map(card.put, pictures()))
            waits = card.work.waits
            if isinstance(result, torch.Tensor):
                assert result.device == card.device
            assert plain(result) == want
    assert waits <= most


def test_a_video_needs_no_float64(make_chain):
    chain = make_chain()
    want = ZoomVideo(chain, 48, 64).render_frame(0.8)
    with use_card(has_float64=False) as card:
        on_card = replace(chain, frames=tuple(map(card.put, chain.frames)))
        frame = ZoomVideo(on_card, 48, 64).render_frame(0.8).cpu()
    torch.testing.assert_close(frame, want, atol=1e-7, rtol=0)


def test_resampling_matrices_are_copied_to_the_card_once():
    with use_card() as card:
        image = card.put(picture(0, 130, 66))
        first = resize_banded(image, 31, 17)
        before = card.work.copy()
        assert torch.equal(resize_banded(image, 31, 17), first)
    assert card.work.since(before).transfers == []


@pytest.fixture
def tf32():
    """Torch may round matrix products to TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


def test_back_projection_converges_where_torch_may_use_tf32(tf32):
    sr, lq = picture(0, 96, 96)[:1], picture(2, 24, 24)[:1]
    with use_card() as card:
        result = back_project(card.put(sr), card.put(lq))
        waits = card.work.waits
        decibels = measure_agreement(result, card.put(lq))
        assert torch.equal(result.cpu(), back_project(sr, lq))
    assert waits <= 2
    assert decibels > 120
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("is_old", [False, True], ids=["torch 2.9", "torch 2.8"])
def test_the_precision_of_products_is_set_back(monkeypatch, is_old, precision):
    if is_old:
        monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace())
    inside = []

    def multiply_and_fail():
        with forbid_tf32():
            inside.append(torch.get_float32_matmul_precision())
            raise RuntimeError("stopped")

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with pytest.raises(RuntimeError, match="stopped"):
            multiply_and_fail()
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    if is_old:
        assert inside == ["highest"]


def test_other_code_may_set_the_precision_of_one_backend():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"  # torch.get_float32_matmul_precision now raises an error
    try:
        with forbid_tf32():
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


@pytest.mark.parametrize("scale", [2, 4])
def test_back_projection_takes_its_result_and_about_one_image_more(monkeypatch, scale):
    # As an image of 2048 x 2048 pixels and more.
    monkeypatch.setattr("coz.fidelity.banded_resize.MAX_PIXELS_AT_ONCE", 1)
    with use_card() as card:
        small = 128 // scale
        sr, lq = (card.put(picture(*place)[:1]) for place in ((0, 128, 128), (2, small, small)))
        want = back_project(sr, lq, iterations=2)  # the matrices are on the card now
        before = card.memory.live
        card.memory.restart_peak()
        result = back_project(sr, lq, iterations=2)
        peak = card.memory.peak - before
        assert torch.equal(result, want)
    assert peak <= {2: 2.4, 4: 2.2}[scale] * sr.nbytes


def test_planes_one_by_one_are_those_together(monkeypatch):
    sr, lq = picture(0, 120, 96), picture(2, 50, 24)
    want = back_project(sr, lq, 0.5)
    monkeypatch.setattr("coz.fidelity.banded_resize.MAX_PIXELS_AT_ONCE", 1)
    assert torch.equal(back_project(sr, lq, 0.5), want)
