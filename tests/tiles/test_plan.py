"""Tiles as views of an enlarged picture that is never made."""

import pytest
import torch

from coz.geometry import Window
from coz.resample import resize
from coz.tiles.complexity import rate_complexity
from coz.tiles.plan import (
    OVERVIEW_SHORT_SIDE_PIXELS,
    cut_surroundings,
    cut_tile_view,
    enlarge_side,
    find_tile_input,
    make_overview,
    plan_abutting_tiles,
    plan_tiles,
)


@pytest.mark.parametrize("scale", [1.5, 2.56, 4, 7.3])
def test_a_tile_s_view_is_cut_from_the_enlarged_picture(scale):
    image = torch.rand(1, 3, 61, 83)
    whole = resize(image, enlarge_side(61, scale), enlarge_side(83, scale))
    layout = plan_tiles(61, 83, scale, 64, 16)
    assert (layout.height, layout.width) == whole.shape[-2:]
    for window in layout.list_windows():
        x, y, width, height = (int(v) for v in window)
        expected = whole[..., y : y + height, x : x + width]
        # Places of taps are computed from the tile's edge, not from the picture's.
        assert torch.allclose(cut_tile_view(image, layout, window), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.5, 4, 7.3])
def test_beyond_the_picture_a_view_is_its_mirror_image(scale):
    image = torch.rand(1, 3, 61, 83)
    layout = plan_tiles(61, 83, scale, 64, 16)
    fx, fy = layout.width / 83, layout.height / 61
    mirrored = torch.nn.functional.pad(image, (20, 20, 20, 20), mode="reflect")
    for x, y in ((-9, -5), (layout.width - 40, -5), (-9, layout.height - 30), (30, 30)):
        found = cut_tile_view(image, layout, Window(x, y, 50, 40))
        box = Window(x / fx + 20, y / fy + 20, 50 / fx, 40 / fy)
        expected = resize(mirrored, 40, 50, box=box)
        # Places of taps are computed from another corner.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [1.5, 1.61, 2.56, 4, 8])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 300), (203, 150)])
def test_abutting_tiles_cover_every_pixel_once(scale, height, width):
    layout = plan_tiles(height, width, scale, 128, 30)
    times = torch.zeros(layout.height, layout.width)
    tiles = plan_abutting_tiles(height, width, layout)
    for x, y, w, h in tiles:
        assert w <= layout.tile_width
        assert h <= layout.tile_height
        times[y : y + h, x : x + w] += 1
    assert (times == 1).all()
    assert len(tiles) <= len(layout.list_windows())
    if scale in {4, 8}:
        assert all(x % scale == y % scale == 0 for x, y, *_ in tiles)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(
    ("scale", "tile"), [(4, 128), (2.5, 125), (3.2, 128), (1.5, 126), (8, 128)]
)
def test_tiles_begin_and_end_on_pixels_of_the_picture(scale, tile, adaptive):
    image = torch.rand(1, 3, 80, 160)
    layout = plan_tiles(80, 160, scale, 128, 30, rate_complexity(image) if adaptive else None)
    assert (layout.tile_height, layout.tile_width) == (min(tile, layout.height), tile)
    assert len(layout.list_windows()) > 1
    for window in layout.list_windows():
        for value in find_tile_input(image, layout, window):
            assert value == pytest.approx(round(value), abs=1e-9)


def test_a_factor_without_common_pixels_keeps_its_tiles():
    assert plan_tiles(200, 200, 1.61, 128, 32).tile_width == 128


def test_the_wider_view_has_a_tile_s_pixels_and_the_tile_in_its_middle():
    image = torch.rand(1, 3, 300, 400)
    layout = plan_tiles(300, 400, 4, 64, 16)
    window = Window(768, 576, 64, 64)  # the source's pixels 192..208, 144..160
    assert torch.equal(cut_surroundings(image, layout, window), image[..., 120:184, 168:232])
    # At the edge it stays inside the picture.
    corner = Window(1536, 1136, 64, 64)
    assert torch.equal(cut_surroundings(image, layout, corner), image[..., 236:300, 336:400])
    # A picture smaller than a tile is seen whole.
    small = image[..., :20, :30]
    layout = plan_tiles(20, 30, 2, 512, 128)
    assert torch.equal(cut_surroundings(small, layout, *layout.list_windows()), small)


def test_the_overview_is_the_whole_picture_with_a_fixed_short_side():
    image = torch.rand(1, 3, 300, 400)
    height, width = OVERVIEW_SHORT_SIDE_PIXELS, 400 * OVERVIEW_SHORT_SIDE_PIXELS // 300
    assert torch.equal(make_overview(image), resize(image, height, width, "lanczos"))


@pytest.mark.parametrize(
    ("height", "width", "sides"),
    [(50, 10000, (10, 2000)), (10000, 50, (2000, 10)), (1, 5000, (1, 5000)), (1, 1, (512, 512))],
)
def test_the_overview_of_a_strip_is_not_larger_than_others(height, width, sides):
    assert make_overview(torch.rand(1, 3, height, width)).shape == (1, 3, *sides)


def test_sides_are_rounded_and_never_vanish():
    assert [enlarge_side(side, 1.5) for side in (1, 3, 5)] == [2, 4, 8]
    assert enlarge_side(1, 0.1) == 1
