import numpy as np
import pytest
import torch

from coz.latent import make_one_step_noise, pad_to_multiple, scale_to_model, scale_to_vae


class Affine:
    """A format as SD3's, with a shift for each channel, as other models have it."""

    scale = 1.5
    shift = torch.tensor([0.25, -0.5]).view(1, 2, 1, 1)

    def process_in(self, latent):
        return (latent - self.shift) * self.scale

    def process_out(self, latent):
        return latent / self.scale + self.shift


class Sampling:
    """eps prediction, whose network input and start both have a gain."""

    sigma_max = torch.tensor(14.61)

    def calculate_input(self, sigma, noise):
        return noise / (sigma**2 + 1) ** 0.5

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return noise * (sigma**2 + 1) ** 0.5 * 0.7 + latent_image


@pytest.mark.parametrize(
    ("shift", "added", "kept"), [("reference", 0, 1), ("none", 0, 0), ("symmetric", 1, 1)]
)
def test_shift_on_encode_and_decode(shift, added, kept):
    latent = torch.rand(2, 2, 4, 3)
    expected = (latent - added * Affine.shift) * Affine.scale
    torch.testing.assert_close(scale_to_model(latent, Affine(), shift), expected)
    expected = latent / Affine.scale + kept * Affine.shift
    found = scale_to_vae(Affine().process_out(latent), Affine(), shift)
    torch.testing.assert_close(found, expected)


def test_network_gets_the_latent_itself():
    latent, sampling = torch.rand(2, 3, 4, 5), Sampling()
    before = latent.clone()
    sigma = sampling.sigma_max.reshape(1)
    start = sampling.noise_scaling(sigma, make_one_step_noise(latent, sampling), 0 * latent, True)
    torch.testing.assert_close(sampling.calculate_input(sigma, start), latent)
    assert torch.equal(latent, before)


@pytest.mark.parametrize(
    ("height", "width", "multiple"),
    [(16, 32, 16), (17, 31, 16), (5, 7, 16), (1, 1, 16), (8, 9, 16), (33, 40, 32)],
)
def test_padding_mirrors_or_repeats(height, width, multiple):
    image = torch.rand(1, 2, height, width)
    expected = image.numpy()
    for axis, side in ((2, height), (3, width)):
        added = -side % multiple
        widths = [(0, added if i == axis else 0) for i in range(4)]
        expected = np.pad(expected, widths, mode="reflect" if side > added else "edge")
    assert np.array_equal(pad_to_multiple(image, multiple).numpy(), expected)


def test_nothing_to_pad_is_no_copy():
    image = torch.rand(1, 3, 32, 48)
    assert pad_to_multiple(image) is image
