"""One field of noise for a picture, of which every tile takes its window."""

import torch

from coz.tiles.noise import NoiseField


def latent(height, width, channels=4, frames=None):
    shape = (1, channels, height, width) if frames is None else (1, channels, frames, height, width)
    return torch.zeros(shape)


def test_tiles_see_the_same_noise_where_they_overlap_in_any_order():
    places = [(0, 0), (384, 0), (384, 384), (8, 16)]
    tile = latent(64, 64)
    one, other = NoiseField(1024, 1024, 7), NoiseField(1024, 1024, 7)
    forwards = [one.cut_window(tile, x, y, 8) for x, y in places]
    backwards = [other.cut_window(tile, x, y, 8) for x, y in reversed(places)]
    assert all(map(torch.equal, forwards, reversed(backwards)))
    first, right, below, near = forwards
    assert torch.equal(first[..., 48:], right[..., :16])
    assert torch.equal(right[..., 48:, :], below[..., :16, :])
    assert torch.equal(first[..., 2:, 1:], near[..., :-2, :-1])
    assert not torch.equal(first, right)


def test_a_tile_between_latent_pixels_takes_the_nearest():
    field, tile = NoiseField(100, 100, 0), latent(4, 4)
    assert torch.equal(field.cut_window(tile, 21, 11, 8), field.cut_window(tile, 24, 8, 8))


def test_the_noise_is_normal_and_the_seeds():
    values = NoiseField(2048, 2048, 3).cut_window(latent(256, 256), 0, 0, 8)
    # 262,144 values: five standard errors of their mean and of their standard deviation.
    assert abs(values.mean()) < 5 / 512
    assert abs(values.std() - 1) < 5 / 512 / 2**0.5
    assert not torch.equal(values, NoiseField(2048, 2048, 4).cut_window(latent(256, 256), 0, 0, 8))


def test_every_tile_of_any_picture_is_inside_the_field():
    for side in (1, 7, 404, 500):
        for reduction in (4, 8, 16):
            field = NoiseField(side, side, 0)
            padded = -(-side // max(16, 2 * reduction)) * max(16, 2 * reduction) // reduction
            for start in (0, side // 3):
                rest = padded - start // reduction
                found = field.cut_window(latent(rest, padded), 0, start, reduction)
                assert found.shape == (1, 4, rest, padded)


def test_a_latent_of_a_video_vae_gets_its_shape():
    flat = NoiseField(64, 64, 1).cut_window(latent(8, 8), 0, 0, 8)
    video = NoiseField(64, 64, 1).cut_window(latent(8, 8, frames=1), 0, 0, 8)
    assert torch.equal(video[:, :, 0], flat)
