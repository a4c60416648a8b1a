import numpy as np
import pytest
import torch
from skimage.color import rgb2lab

from coz.fidelity.invented import (
    MIN_CELL_PIXELS,
    describe_invented,
    format_percent,
    map_disagreement,
    map_invented,
    measure_invented_area,
    measure_invented_energy,
    measure_octaves,
)
from coz.render.heat_map import (
    DIMMED_BRIGHTNESS,
    LEGEND_GRAY,
    PANEL_SIDE_PIXELS,
    color_heat,
    draw_map_sheet,
    overlay_heat,
)
from coz.resample import resize
from tests.support.images import noise


def waves(period, side=64):
    """Light and dark bars of the given period, and their like at a right angle."""
    x = torch.sin(torch.arange(side) * (2 * torch.pi / period) + torch.pi / 4)
    return x.expand(1, 3, side, side), x[:, None].expand(1, 3, side, side)


def test_the_source_itself_holds_everything():
    image = noise(1, 3, 40, 50)
    assert measure_invented_energy(image, image) == 0
    assert [band.invented for band in measure_octaves(image, image)] == [0] * 4
    assert map_invented(image, image).max() == 0


def test_flat_pictures_invent_nothing():
    flat = torch.full((1, 3, 40, 50), 0.3)
    assert measure_invented_energy(flat, noise(1, 3, 40, 50)) == 0
    assert measure_invented_energy(flat, flat + 0.2) == 0
    assert [band.invented for band in measure_octaves(flat, flat + 0.2)] == [0] * 4
    assert map_invented(flat, flat + 0.2).max() < 0.01


def test_what_eight_bits_round_away_is_not_invented():
    flat = torch.full((1, 3, 40, 50), 128 / 255)
    ripple = noise(1, 3, 40, 50) - 0.5  # standard deviation 0.29
    assert measure_invented_energy(flat + 0.9 * ripple / 255, flat) == 0
    assert measure_invented_energy(flat + 1.1 * ripple / 255, flat) == 1


@pytest.mark.parametrize(("coarse", "fine"), [(0.2, 0.1), (0.1, 0.3), (0.3, 0.01)])
def test_independent_detail_counts_by_its_variance(coarse, fine):
    across, down = waves(16)
    sr, reference = 0.5 + coarse * across + fine * down, 0.5 + coarse * across
    share = fine**2 / (coarse**2 + fine**2)
    assert measure_invented_energy(sr, reference) == pytest.approx(share, rel=1e-3)
    # Neither colour nor contrast is invented.
    assert measure_invented_energy(sr, reference * 0.5 + 0.1) == pytest.approx(share, rel=1e-3)


def test_is_one_less_the_square_of_the_correlation():
    sr, reference = noise(1, 1, 100, 70), noise(1, 1, 100, 70, seed=1)
    reference = 0.4 * sr + 0.6 * reference
    r = np.corrcoef(sr.flatten().numpy(), reference.flatten().numpy())[0, 1]
    assert measure_invented_energy(sr, reference) == pytest.approx(1 - r**2, rel=1e-4)
    assert measure_invented_energy(sr.half(), reference.half()) == pytest.approx(1 - r**2, rel=1e-2)


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param(1 - noise(1, 3, 64, 64), id="the opposite"),
        pytest.param(torch.full((1, 3, 64, 64), 0.5), id="a flat source"),
        pytest.param(noise(1, 3, 64, 64, seed=1), id="another picture"),
    ],
)
def test_all_is_invented(reference):
    assert 0.99 < measure_invented_energy(noise(1, 3, 64, 64), reference) <= 1


@pytest.mark.parametrize(("period", "size"), [(2, 1), (4, 2), (8, 4), (16, 8)])
def test_a_structure_is_in_its_octave(period, size):
    across, down = waves(period, 128)
    reference = 0.5 + 0.2 * waves(64, 128)[0]
    bands = measure_octaves(reference + 0.1 * across * down, reference)
    assert [band.size for band in bands] == [1, 2, 4, 8, 16, 32]
    strongest = max(bands, key=lambda band: band.invented * band.energy)
    assert strongest.size in {size, size // 2}
    assert strongest.invented > 0.95
    assert bands[-1].invented < 0.1
    assert all(0 <= value <= 1 for band in bands for value in band[1:])


def test_an_enlarged_source_holds_the_large_structures_alone():
    truth = resize(noise(1, 3, 64, 64), 256, 256)
    truth = (truth + 0.2 * (noise(1, 3, 256, 256, seed=1) - 0.5)).clamp(0, 1)
    reference = resize(resize(truth, 64, 64), 256, 256)
    shares = [band.invented for band in measure_octaves(truth, reference)]
    assert shares[0] > 0.8
    assert max(shares[3:]) < 0.02


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_rounding_to_eight_bits_invents_nothing(factor):
    source = resize(noise(1, 3, 16, 16), 256 // factor, 256 // factor).clamp(0, 1)
    reference = resize(source, 256, 256).clamp(0, 1)
    saved = (reference * 255).round() / 255
    assert max(band.invented for band in measure_octaves(saved, reference)) < 0.01


def test_the_map_shows_the_place():
    x = torch.linspace(0, 1, 256).expand(1, 3, 256, 256)
    sr = x.clone()
    sr[..., 128:] += 0.2 * (noise(1, 3, 256, 128) - 0.5)
    heat = map_invented(sr, x)
    assert heat.shape == (1, 1, 256, 256)
    assert heat[..., :112].max() < 0.02
    assert heat[..., 144:].min() > 0.8
    assert heat.min() >= 0
    assert heat.max() <= 1


def test_what_cannot_be_seen_is_no_heat():
    flat = torch.full((1, 3, 64, 64), 0.5)
    assert map_invented(flat + (noise(1, 3, 64, 64) - 0.5) / 255, flat).max() < 0.1


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 1, 9), (1, 3, MIN_CELL_PIXELS, 100)])
def test_tiny_pictures(shape):
    a, b = noise(*shape), noise(*shape, seed=1)
    assert 0 <= measure_invented_energy(a, b) <= 1
    assert len(measure_octaves(a, b)) == (shape[2] == MIN_CELL_PIXELS)
    assert map_invented(a, b).shape == (shape[0], 1, *shape[2:])


def test_disagreement_is_the_standard_deviation():
    results = noise(5, 2, 3, 12, 17)
    expected = results.var(0, correction=0).mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(map_disagreement(list(results)), expected, atol=1e-6, rtol=0)
    assert map_disagreement([results[0]]).max() == 0
    black, white = torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4)
    assert torch.equal(map_disagreement([black, white]), torch.full((1, 1, 4, 4), 0.5))


def test_the_ramp_gets_lighter_steadily():
    colors = color_heat(torch.linspace(0, 1, 101).reshape(1, 1, 1, -1))[0, :, 0].T.numpy()
    lightness = rgb2lab(colors)[:, 0]
    assert (np.diff(lightness) > 0).all()
    # In CIELAB, a step of the ramp is as large as any other but for a half.
    assert np.diff(lightness).max() < 1.5 * np.diff(lightness).mean()


def test_cold_places_are_the_picture_in_dim_grey():
    picture = noise(1, 3, 8, 8)
    grey = torch.einsum("bchw,c->bhw", picture, torch.tensor([0.299, 0.587, 0.114]))[:, None]
    cold = overlay_heat(picture, torch.zeros(1, 1, 8, 8))
    torch.testing.assert_close(cold, (DIMMED_BRIGHTNESS * grey).expand(1, 3, 8, 8))
    hot = overlay_heat(picture, torch.ones(1, 1, 8, 8))
    assert (hot[:, 0] > 0.7).all()
    assert hot.max() <= 1


def test_percent_is_for_a_person():
    assert [format_percent(share) for share in (0, 0.014, 0.0994, 0.0996, 0.125, 1)] == [
        "0.0 %", "1.4 %", "9.9 %", "10 %", "12 %", "100 %",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "almost nothing of its area is invented (0.0 %)"),
        (0.0099, "almost nothing of its area is invented (1.0 %)"),
        (0.01, "little of its area is invented (1.0 %)"),
        (0.1, "part of its area is invented (10 %)"),
        (0.5, "most of its area is invented (50 %)"),
        (0.9, "nearly all of its area is invented (90 %)"),
        (1, "nearly all of its area is invented (100 %)"),
    ],
)
def test_what_is_invented_is_said_in_words_first(share, words):
    assert describe_invented(share) == words


def test_a_place_is_invented_where_the_new_is_as_strong_as_the_known():
    known, new = waves(8, 256)
    heats = [
        map_invented(0.5 + 0.2 * known + strength * new, 0.5 + 0.2 * known)
        for strength in (0.19, 0.22)
    ]
    assert [measure_invented_area(heat[..., 32:-32, 32:-32]) for heat in heats] == [0, 1]
    half = torch.cat((torch.full((1, 1, 4, 6), 0.7), torch.full((1, 1, 4, 2), 0.71)), 3)
    assert measure_invented_area(half) == 0.25


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((512, 512), (512, 512)),
        ((64, 48), (512, 384)),
        ((300, 200), (300, 200)),
        ((2048, 1024), (512, 256)),
        ((1, 1), (512, 512)),
        ((3, 1200), (1, 512)),
        ((1200, 3), (512, 1)),
    ],
)
def test_a_map_is_shown_with_a_legend_above_and_the_picture_below(size, shown):
    frame, heat = noise(1, 3, *size), noise(1, 1, *size, seed=1)
    sheet = draw_map_sheet("4x: 128 x 128 real pixels", frame, heat, ("real", "invented"))
    height, width = shown
    margin = PANEL_SIDE_PIXELS // 48
    assert sheet.shape[-1] == PANEL_SIDE_PIXELS + 2 * margin
    left = (sheet.shape[-1] - width) // 2

    def panel(number):
        bottom = sheet.shape[-2] - margin - (1 - number) * (height + margin)
        return sheet[..., bottom - height : bottom, left : left + width]

    if max(size) <= PANEL_SIDE_PIXELS:
        times = height // size[0]
        for number, picture in enumerate((overlay_heat(frame, heat), frame)):
            expected = picture.repeat_interleave(times, -2).repeat_interleave(times, -1)
            torch.testing.assert_close(panel(number), expected, atol=ONE_BYTE, rtol=0)
    assert (panel(0).mean() - overlay_heat(frame, heat).mean()).abs() < 0.1
    assert (panel(1).mean() - frame.mean()).abs() < 0.1
    # The bar holds the colours of the map, cold on the left and hot on the right.
    legend = sheet[0, :, : sheet.shape[-2] - 2 * (height + margin)]
    hot = (legend - bar(2)[:, :1, -1:]).abs().amax(0) < ONE_BYTE
    row, end = hot.nonzero()[0]
    starts = [
        start
        for start in range(end)
        if torch.allclose(legend[:, row, start : end + 1], bar(end + 1 - start)[:, 0], 0, ONE_BYTE)
    ]
    assert len(starts) == 1
    assert end - starts[0] > 256


ONE_BYTE = 0.51 / 255


def bar(length):
    heat = torch.linspace(0, 1, length).reshape(1, 1, 1, -1)
    return overlay_heat(torch.full((1, 3, 1, length), LEGEND_GRAY), heat)[0]


def test_too_little_to_compare_is_a_title_and_the_picture():
    frame = noise(1, 3, 512, 512)
    title = "Chain 12, 1024x: less than one real pixel, too few real pixels to compare"
    sheet = draw_map_sheet(title, frame)
    plain = draw_map_sheet("4x", frame)
    assert sheet.shape[-2] - plain.shape[-2] == pytest.approx(30, abs=3)  # a second line of text
    assert sheet[..., :-1, :].shape[-1] == plain.shape[-1]
    torch.testing.assert_close(sheet[..., -522:-10, 10:522], frame, atol=ONE_BYTE, rtol=0)
    assert sheet[..., :-522, -4:].max() == 0  # no letter is cut off


def test_errors_name_the_sizes():
    a, b = noise(1, 3, 8, 8), noise(1, 3, 8, 9)
    for measure in (measure_invented_energy, measure_octaves, map_invented):
        with pytest.raises(ValueError, match=r"same shape, got \(1, 3, 8, 8\) and \(1, 3, 8, 9\)"):
            measure(a, b)
    with pytest.raises(ValueError, match="the same size, got 8 x 8, 9 x 8"):
        map_disagreement([a, b])
    with pytest.raises(ValueError, match="the same size, got none"):
        map_disagreement([])
