import pytest
import torch
import torch.nn.functional as F

from coz.ensemble import self_ensemble
from tests.support.images import noise

TURNS = [
    pytest.param(lambda x, k=k, mirror=mirror: (x.flip(-1) if mirror else x).rot90(k, (-2, -1)),
                 id=f"{90 * k} degrees{' mirrored' if mirror else ''}")
    for k in range(4)
    for mirror in (False, True)
    if k or mirror
]  # fmt: skip


def network(factor=2):
    """A convolution that treats no two directions alike, with a bend."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3 * factor**2, 3, 3, 3, generator=generator) * 0.3

    def upscale(image):
        assert image.is_contiguous()
        assert image.dtype == torch.float32
        return F.pixel_shuffle(F.conv2d(image, weight, padding=1).tanh(), factor)

    return upscale


def mean_of_eight(upscale, image):
    """By hand, of a (B, C, H, W) image."""
    results = []
    for k in range(4):
        turned = image.rot90(k, (-2, -1))
        results.append(upscale(turned.contiguous()).rot90(-k, (-2, -1)))
        results.append(upscale(turned.flip(-1).contiguous()).flip(-1).rot90(-k, (-2, -1)))
    return torch.stack(results).mean(0)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 9, 22), (1, 3, 1, 5), (1, 3, 1, 1)])
def test_a_turned_image_gives_the_turned_result(turn, shape):
    upscale, image = network(), noise(*shape)
    expected = turn(self_ensemble(upscale, image))
    torch.testing.assert_close(self_ensemble(upscale, turn(image)), expected, atol=1e-6, rtol=0)
    if shape[-1] > 1:
        assert not torch.allclose(upscale(turn(image).contiguous()), turn(upscale(image)))


@pytest.mark.parametrize("factor", [1, 3])
def test_it_is_the_mean_of_the_eight(factor):
    upscale, image = network(factor), noise(2, 3, 8, 13)
    mean = mean_of_eight(upscale, image)
    torch.testing.assert_close(self_ensemble(upscale, image), mean, atol=1e-6, rtol=0)


def test_the_ensemble_of_an_ensemble_is_the_same_again():
    upscale, image = network(), noise(1, 3, 8, 13)

    def once(image):
        return self_ensemble(upscale, image)

    torch.testing.assert_close(self_ensemble(once, image), once(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_added_up_in_float32(dtype):
    image = noise(1, 3, 8, 8).to(dtype)
    mean = self_ensemble(lambda x: x, image)
    assert mean.dtype == dtype
    assert torch.equal(mean, image)  # eight times itself, with nothing lost on the way


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_neither_the_image_nor_a_result_is_written_to(mode):
    kept = []

    @torch.inference_mode()
    def upscale(image):
        kept.append((image, image.clone()))
        return image

    with torch.inference_mode():
        image = noise(1, 3, 8, 5)
    before = image.clone()
    with mode():
        self_ensemble(upscale, image)
    assert torch.equal(image, before)
    assert len(kept) == 8
    assert all(torch.equal(given, copy) for given, copy in kept)
