import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.exposure import match_histograms

from benchmarks.color import align_dense
from coz.color.align import (
    adain_align,
    histogram_align,
    measure_low_frequency_distance,
    wavelet_align,
    ycbcr_align,
)
from coz.color.method import (
    BEST_CANDIDATES,
    METHODS,
    best_align,
    color_align,
    hybrid_align,
    ycbcr_wavelet_histogram_align,
)
from tests.conftest import DATA
from tests.support.images import noise

ALIGNS = [wavelet_align, adain_align, ycbcr_align, histogram_align, hybrid_align]
GOLDEN = load_file(DATA / "color_fix.safetensors")


@pytest.mark.parametrize("case", range(3))
def test_equals_the_reference(case):
    sr, reference = GOLDEN[f"{case}.target"], GOLDEN[f"{case}.source"]
    for align, name in ((wavelet_align, "wavelet"), (adain_align, "adain")):
        expected = GOLDEN[f"{case}.{name}"]
        torch.testing.assert_close(align(sr, reference), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("levels", [1, 2, 5, 7])
@pytest.mark.parametrize("shape", [(2, 3, 33, 47), (1, 1, 8, 5), (1, 4, 1, 1), (1, 3, 1, 64)])
def test_any_levels_and_channels_equal_the_dense_form(shape, levels):
    sr, reference = noise(2, *shape)
    found, expected = (align(sr, reference, levels) for align in (wavelet_align, align_dense))
    # 1e-5: the bar; the dense form sums 9 products a level in another order.
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("align", ALIGNS)
def test_an_image_is_its_own_reference(align):
    image = torch.rand(2, 3, 24, 31)
    torch.testing.assert_close(align(image, image), image, atol=1e-6, rtol=0)


def test_adain_gives_the_mean_and_spread_of_the_reference():
    sr, reference = torch.rand(2, 1, 3, 64, 64)
    reference = reference * 0.5 + 0.2
    fixed = adain_align(sr, reference)
    torch.testing.assert_close(fixed.mean((-2, -1)), reference.mean((-2, -1)))
    # 1e-3: the reference's epsilon of 1e-5 on a variance of 0.02.
    torch.testing.assert_close(fixed.std((-2, -1)), reference.std((-2, -1)), rtol=1e-3, atol=0)


def test_adain_of_one_pixel_is_the_references_colour():
    reference = torch.tensor([0.1, 0.5, 0.9]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(adain_align(torch.rand(1, 3, 1, 1), reference), reference)


@pytest.mark.parametrize("method", METHODS)
def test_images_of_a_batch_do_not_touch_each_other(method):
    sr, reference = noise(2, 3, 3, 40, 56)
    sr[1] = reference[1] * 0.5 + 0.2
    batch = color_align(method, sr.movedim(1, -1).contiguous().movedim(-1, 1), reference)
    for i in range(3):
        alone = color_align(method, sr[i : i + 1], reference[i : i + 1])
        torch.testing.assert_close(batch[i : i + 1], alone, atol=1e-6, rtol=0)


def test_ycbcr_is_the_exchange_of_chroma_in_full_range_bt601():
    sr, reference = noise(2, 2, 3, 33, 47)
    to_ycbcr = torch.tensor(  # ITU-T T.871, as in JPEG files
        [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    )
    luma, chroma = (torch.einsum("ij,bjhw->bihw", to_ycbcr, image) for image in (sr, reference))
    mixed = torch.cat((luma[:, :1], chroma[:, 1:]), 1)
    expected = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycbcr), mixed)
    # 1e-5: the standard rounds the chroma rows to six decimals.
    torch.testing.assert_close(ycbcr_align(sr, reference), expected, atol=1e-5, rtol=0)


def test_ycbcr_agrees_with_pillow():
    # Between 0.3 and 0.7, so that no mixture leaves the range.
    pixels = (noise(2, 24, 24, 3) * 100 + 78).byte().numpy()
    sr, reference = (Image.fromarray(each).convert("YCbCr").split() for each in pixels)
    mixed = np.asarray(Image.merge("YCbCr", (sr[0], *reference[1:])).convert("RGB"))
    frames = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
    fixed = ycbcr_align(frames[:1], frames[1:])[0].movedim(0, -1).numpy() * 255
    # Pillow cuts each of the three to 8 bits, twice; 1.772 of the blue chroma goes into the blue.
    assert np.abs(fixed - mixed).max() < 4
    assert np.abs(fixed - mixed).mean() < 2


@pytest.mark.parametrize("levels", [(0, 0), (255, 0), (0, 255), (8, 8), (1, 3), (8, 200)])
def test_histogram_equals_scikit_image(levels):
    # Steps give repeated values; beyond [0, 1] too, and zero with both signs.
    sr, reference = (
        (image * n).round() / n * 1.6 - 0.4 if n else image
        for image, n in zip(noise(2, 2, 3, 57, 41), levels, strict=True)
    )
    reference = reference**3
    reference[0, :, :20] = -0.0
    pairs = zip(sr.numpy(), reference.numpy(), strict=True)
    expected = np.stack([match_histograms(one, other, channel_axis=0) for one, other in pairs])
    fixed = histogram_align(sr, reference)
    torch.testing.assert_close(fixed.numpy(), expected, atol=1e-6, rtol=0)


def test_histogram_gives_the_distribution_of_the_reference():
    generator = torch.Generator().manual_seed(0)
    planes = [torch.randperm(4096, generator=generator) / 4096 for _ in range(6)]
    sr, reference = torch.stack(planes).reshape(2, 1, 3, 64, 64)
    fixed = histogram_align(sr, reference**2).flatten(2)
    assert torch.equal(fixed.sort().values, (reference**2).flatten(2).sort().values)
    assert torch.equal(fixed.argsort(), sr.flatten(2).argsort())


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 1, 1, 7), (1, 4, 5, 1)])
def test_histogram_of_the_smallest_images(shape):
    sr, reference = torch.rand(2, *shape)
    assert torch.equal(histogram_align(sr, torch.full(shape, 0.3)), torch.full(shape, 0.3))
    fixed = histogram_align(torch.full(shape, 0.3), reference)
    assert torch.equal(fixed, reference.amax((-2, -1), keepdim=True).expand(shape))
    fixed = histogram_align(sr, reference)
    found, expected = (image.flatten(2).sort().values for image in (fixed, reference))
    assert torch.equal(found, expected)


def test_hybrid_is_the_weighted_mean_and_its_ends_are_exact():
    sr, reference = torch.rand(2, 2, 3, 40, 40)
    wavelet, adain = wavelet_align(sr, reference, 3), adain_align(sr, reference)
    assert torch.equal(hybrid_align(sr, reference, 3, 0), wavelet)
    assert torch.equal(hybrid_align(sr, reference, 3, 1), adain)
    mixed = hybrid_align(sr, reference, 3, 0.25)
    torch.testing.assert_close(mixed, 0.75 * wavelet + 0.25 * adain, atol=1e-6, rtol=0)


def test_low_distance_is_that_of_the_blurred_images():
    sr, reference = torch.rand(2, 2, 3, 50, 70)
    low = [wavelet_align(torch.zeros_like(sr), image, 3) for image in (sr, reference)]
    expected = (low[0] - low[1]).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(measure_low_frequency_distance(sr, reference, 3), expected)


def test_best_takes_for_each_image_what_is_nearest_in_low_frequencies():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 6, 6, generator=generator)
    reference = torch.nn.functional.interpolate(coarse, size=(192, 192), mode="bicubic")
    reference = reference.clamp(0, 1) * 0.8 + 0.1
    reference[5] = reference[5] * 0.1
    grain = torch.randn(3, 192, 192, generator=generator) * 0.02
    sr = torch.stack(
        (
            reference[0],
            reference[1] + grain,  # only its detail is other
            (reference[2] ** 1.5) * 0.9,  # a curve of tone
            reference[3].flip(-1),  # shading from another picture
            reference[4] + grain.mean(0) * 4,  # grey noise
            (reference[5] + grain * 20).clamp(0, 1),  # wavelet would leave the range
        )
    )
    fixed, chosen = best_align(sr, reference)
    for i, method in enumerate(chosen):
        one, other = sr[i : i + 1], reference[i : i + 1]
        candidates = {name: color_align(name, one, other) for name in BEST_CANDIDATES}
        distances = {
            name: float(measure_low_frequency_distance(image.clamp(0, 1), other))
            for name, image in candidates.items()
        }
        assert method == min(distances, key=distances.get)
        torch.testing.assert_close(fixed[i : i + 1], candidates[method], atol=1e-6, rtol=0)
    assert chosen[0] == "wavelet"  # as near as "none", but earlier in the list
    assert chosen[2] == "histogram"
    assert chosen[3] == "wavelet"
    assert chosen[5] != "wavelet"


def test_the_order_of_the_methods_is_a_promise():
    first = ["wavelet", "adain", "none", "ycbcr", "histogram", "hybrid"]
    assert first == BEST_CANDIDATES
    assert [*first, "best", "ycbcr+wavelet+histogram"] == METHODS


def test_the_mix_is_the_studys_with_an_exact_histogram():
    golden = load_file(DATA / "invsr/additions_golden.safetensors")
    sr, reference = golden["image_soft"], golden["image_half"]
    # The source's histogram, which is 0.7 matched and 0.3 sr, has 256 levels.
    exact = 0.7 * histogram_align(sr, reference) + 0.3 * sr
    expected = golden["hybrid_adaptive"] + 0.4 * (exact - golden["histogram_0.7"])
    found = color_align("ycbcr+wavelet+histogram", sr, reference)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_methods_by_name():
    sr, reference = torch.rand(2, 1, 3, 20, 24)
    for method, expected in {
        "none": sr,
        "wavelet": wavelet_align(sr, reference, levels=2),
        "adain": adain_align(sr, reference),
        "ycbcr": ycbcr_align(sr, reference),
        "histogram": histogram_align(sr, reference),
        "hybrid": hybrid_align(sr, reference, 2, 0.3),
        "best": best_align(sr, reference, 2, 0.3)[0],
        "ycbcr+wavelet+histogram": ycbcr_wavelet_histogram_align(sr, reference, 2),
    }.items():
        assert torch.equal(color_align(method, sr, reference, 2, 0.3), expected)


def test_errors_name_the_value():
    for method in set(METHODS) - {"none"}:
        with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 4, 4\) and \(1, 3, 5, 4\)"):
            color_align(method, torch.rand(1, 3, 4, 4), torch.rand(1, 3, 5, 4))
    with pytest.raises(ValueError, match=r"ycbcr needs 3 channels .*, got 4"):
        ycbcr_align(torch.rand(1, 4, 4, 4), torch.rand(1, 4, 4, 4))
    with pytest.raises(ValueError, match=r"weight must be 0 to 1, got 1\.5"):
        hybrid_align(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), weight=1.5)
    with pytest.raises(ValueError, match=r"method must be one of wavelet, .*, best, .*, got lab"):
        color_align("lab", torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="levels must be at least 1, got 0"):
        wavelet_align(torch.rand(1, 3, 4, 4), torch.rand(1, 3, 4, 4), 0)
