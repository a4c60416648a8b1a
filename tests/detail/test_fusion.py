"""Fusion against the study's own results, without the borders, which it pads with zeros."""

import pytest
import torch
from safetensors.torch import load_file

from coz.detail.fusion import DETAIL_MEASURES, FUSION_METHODS, fuse, map_detail, sharpen_edges
from tests.conftest import DATA

GOLDEN = load_file(DATA / "invsr/additions_golden.safetensors")
IMAGES = ("noisy", "half", "soft")


def inside(image):
    """Without what the border can change: Sobel's 1, the average's 4 and the blur's 6 pixels."""
    return image[..., 11:-11, 11:-11]


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("kind", DETAIL_MEASURES)
def test_attention_is_the_studys_up_to_its_range(kind, name):
    # The source's lowest and highest value may lie on its border, so the maps differ by a line.
    found = inside(map_detail(GOLDEN[f"image_{name}"], kind)).flatten().double()
    expected = inside(GOLDEN[f"attention_{kind}_{name}"]).flatten().double()
    found, mean = found - found.mean(), expected.mean()
    slope = found @ (expected - mean) / found.square().sum()
    assert torch.allclose(expected, mean + slope * found, atol=1e-6)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_edges_are_the_studys_up_to_its_range(strength, name):
    image, source = GOLDEN[f"image_{name}"], GOLDEN[f"edges_{strength}_{name}"]
    sharp = sharpen_edges(image, strength)
    free = inside((sharp % 1 > 0) & (source % 1 > 0))  # not clipped
    found, expected = inside(sharp - image)[free], inside(source - image)[free]
    ratio = (found * expected).sum() / found.square().sum()
    assert torch.allclose(found * ratio, expected, atol=1e-5)


def test_max_takes_the_image_with_more_detail():
    calm, sharp = torch.full((1, 3, 40, 32), 0.5), GOLDEN["image_noisy"].mT
    assert torch.equal(fuse(torch.cat([calm, sharp]), "max", "variance"), sharp)


@pytest.mark.parametrize("kind", DETAIL_MEASURES)
def test_flat_images_are_averaged_and_not_black(kind):
    flat = torch.tensor([0.2, 0.8]).view(2, 1, 1, 1).expand(2, 3, 9, 9)
    assert torch.allclose(fuse(flat, "weighted", kind), torch.tensor(0.5))
    assert torch.equal(fuse(flat, "max", kind), flat[:1])


@pytest.mark.parametrize("method", FUSION_METHODS)
def test_equal_images_stay_as_they_are(method):
    image = GOLDEN["image_soft"]
    assert torch.allclose(fuse(image.expand(3, -1, -1, -1), method, "gradient"), image, atol=1e-6)


def test_weights_are_the_attention():
    images = torch.cat([GOLDEN["image_half"], GOLDEN["image_soft"]])
    first, second = map_detail(images, "gradient")
    expected = (first * images[0] + second * images[1]) / (first + second)
    assert torch.allclose(fuse(images, "weighted", "gradient")[0], expected, atol=1e-6)


def test_strength_0_and_flat_images_change_nothing():
    image = GOLDEN["image_noisy"]
    assert torch.equal(sharpen_edges(image, 0), image)
    flat = torch.full((1, 3, 1, 1), 0.5)
    assert torch.equal(sharpen_edges(flat, 1), flat)
