"""How far a network looks, on networks whose reach is known in closed form."""

import pytest
import torch
import torch.nn.functional as F

from coz.tiles.reach import MAX_REACH_PIXELS, MIN_REACH_PIXELS, Reach, measure_reach


def shifted(distance, gain=1.0):
    """Each pixel takes ``gain`` of the pixel ``distance`` to its left, zero where there is none."""

    def upscale(image):
        moved = F.pad(image, (distance, 0))[..., : image.shape[-1]]
        return (image + gain * moved).repeat_interleave(2, -1).repeat_interleave(2, -2)

    return upscale


@pytest.mark.parametrize(
    ("distance", "reach"),
    [(1, 8), (8, 8), (9, 16), (16, 16), (17, 24), (40, 40), (63, 64), (64, 64)],
)
def test_the_reach_of_a_shift_is_its_distance_rounded_up(distance, reach):
    assert measure_reach(shifted(distance)) == Reach(reach, False)


def test_a_change_that_nobody_sees_does_not_count():
    # The lost pixels are 0.25 to 0.75: 0.25 of 255 is the greatest change that is not seen.
    assert measure_reach(shifted(30, gain=0.24 / 255 / 0.75)) == Reach(MIN_REACH_PIXELS, False)
    assert measure_reach(shifted(30, gain=0.26 / 255 / 0.5)) == Reach(32, False)


def test_a_network_that_looks_at_nothing_gets_the_least():
    assert measure_reach(lambda image: image) == Reach(MIN_REACH_PIXELS, False)


@pytest.mark.parametrize("number", [0, 1], ids=["flat", "textured"])
def test_what_shows_on_either_strip_counts(number):
    def upscale(image):
        result = image.clone()
        result[number] = shifted(30)(image[number : number + 1])[0, :, ::2, ::2]
        return result

    assert measure_reach(upscale) == Reach(32, False)


def test_windows_matter_wherever_they_begin():
    def attend(image):  # each pixel becomes the mean of its window of 8 x 8
        means = F.avg_pool2d(F.pad(image, (0, -image.shape[-1] % 8)), 8)
        return F.interpolate(means, scale_factor=8.0)[..., : image.shape[-1]]

    assert measure_reach(attend) == Reach(MIN_REACH_PIXELS, True)


def test_a_global_network_gets_the_greatest():
    # The mean of a textured strip depends on where it ends, by about a thousandth.
    reach = measure_reach(lambda image: image + 10 * image.mean((-2, -1), keepdim=True))
    assert reach == Reach(MAX_REACH_PIXELS, True)


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite values for a gray image"):
        measure_reach(lambda image: image / 0 * 0)


def test_it_is_the_same_every_time_and_takes_two_runs():
    shapes = []

    def upscale(image):
        shapes.append(tuple(image.shape))
        return shifted(20)(image)

    torch.manual_seed(1)
    first = measure_reach(upscale)
    assert shapes == [(2, 3, 32, 96), (2, 3, 32, 83)]
    torch.manual_seed(2)
    assert measure_reach(upscale) == first
