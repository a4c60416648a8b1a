from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.color import dense
from coz.color import adain_align, wavelet_align

GOLDEN = load_file(Path(__file__).parent / "data" / "color_fix.safetensors")


@pytest.mark.parametrize("case", range(3))
def test_equals_the_reference(case):
    sr, reference = GOLDEN[f"{case}.target"], GOLDEN[f"{case}.source"]
    torch.testing.assert_close(
        wavelet_align(sr, reference), GOLDEN[f"{case}.wavelet"], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        adain_align(sr, reference), GOLDEN[f"{case}.adain"], atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("levels", [1, 2, 5, 7])
@pytest.mark.parametrize("shape", [(2, 3, 33, 47), (1, 1, 8, 5), (1, 4, 1, 1), (1, 3, 1, 64)])
def test_any_levels_and_channels_equal_the_dense_form(shape, levels):
    generator = torch.Generator().manual_seed(0)
    sr, reference = torch.rand(2, *shape, generator=generator)
    # 1e-5: the bar; the dense form sums 9 products a level in another order.
    torch.testing.assert_close(
        wavelet_align(sr, reference, levels),
        dense(sr, reference, levels),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("align", [wavelet_align, adain_align])
def test_an_image_is_its_own_reference(align):
    image = torch.rand(2, 3, 24, 31)
    torch.testing.assert_close(align(image, image), image, atol=1e-6, rtol=0)


def test_adain_gives_the_mean_and_spread_of_the_reference():
    sr, reference = torch.rand(2, 1, 3, 64, 64)
    fixed = adain_align(sr, reference * 0.5 + 0.2)
    torch.testing.assert_close(fixed.mean((-2, -1)), (reference * 0.5 + 0.2).mean((-2, -1)))
    # 1e-3: the reference's epsilon of 1e-5 on a variance of 0.02.
    torch.testing.assert_close(
        fixed.std((-2, -1)), (reference * 0.5).std((-2, -1)), rtol=1e-3, atol=0
    )


def test_adain_of_one_pixel_is_the_references_colour():
    reference = torch.tensor([0.1, 0.5, 0.9]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(adain_align(torch.rand(1, 3, 1, 1), reference), reference)


@pytest.mark.parametrize("align", [wavelet_align, adain_align])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_inputs_are_unchanged(align, dtype):
    sr, reference = torch.rand(2, 1, 3, 16, 16).to(dtype)
    before = sr.clone(), reference.clone()
    assert torch.equal(align(sr, reference), align(sr.float(), reference.float()))
    assert torch.equal(sr, before[0])
    assert torch.equal(reference, before[1])


def test_errors_name_the_value():
    with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 4, 4\) and \(1, 3, 4, 5\)"):
        wavelet_align(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 5))
    with pytest.raises(ValueError, match="same shape"):
        adain_align(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 5, 4))
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        wavelet_align(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), 0)
