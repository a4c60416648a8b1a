import random
from itertools import pairwise
from math import ceil

import pytest

from coz.geometry import Window
from coz.tiles.layout import TileRow, plan_adaptive_layout, plan_layout, split_side

COUNTS = pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])

EXTREME = [(1, 1), (10000, 50), (50, 10000), (1, 5000), (5000, 1), (511, 512), (512, 513)]


def sizes(count, seed):
    numbers = random.Random(seed)
    random_ones = [(numbers.randint(1, 5000), numbers.randint(1, 5000)) for _ in range(count)]
    return [(*size, numbers) for size in EXTREME + random_ones]


def grid(numbers):
    rows, columns = numbers.randint(1, 9), numbers.randint(1, 9)
    return [[numbers.random() for _ in range(columns)] for _ in range(rows)]


def overlaps(starts, tile):
    return [before + tile - start for before, start in pairwise(starts)]


def require_cover(starts, tile, side):
    """One axis: from edge to edge, no gap, nothing outside."""
    assert starts[0] == 0
    assert starts[-1] + tile == side
    assert all(before < start <= before + tile for before, start in pairwise(starts))


def axes(layout):
    yield [row.y for row in layout.rows], layout.tile_height, layout.height
    for row in layout.rows:
        yield row.xs, layout.tile_width, layout.width


@pytest.mark.parametrize(
    ("side", "tile", "overlap", "starts"),
    [
        pytest.param(1, 512, 128, (0,), id="one pixel"),
        pytest.param(512, 512, 128, (0,), id="exactly a tile"),
        pytest.param(513, 512, 128, (0, 1), id="a pixel more"),
        pytest.param(896, 512, 128, (0, 384), id="exactly two tiles"),
        pytest.param(1000, 512, 128, (0, 384, 488), id="the last one is shifted inward"),
        pytest.param(1024, 512, 0, (0, 512), id="no overlap"),
        pytest.param(5, 3, 2, (0, 1, 2), id="all but a pixel"),
        pytest.param(3, 1, 0, (0, 1, 2), id="tiles of a pixel"),
    ],
)
def test_starts_of_one_axis(side, tile, overlap, starts):
    layout = plan_layout(side, 1, tile, overlap)
    assert layout.rows == tuple(TileRow(y, (0,)) for y in starts)
    assert (layout.tile_height, layout.tile_width) == (min(tile, side), 1)
    assert plan_layout(1, side, tile, overlap).rows == (TileRow(0, starts),)


def test_windows_go_row_by_row_and_are_as_small_as_the_picture():
    windows = [Window(x, 0, 512, 50) for x in (0, 384, 488)]
    assert plan_layout(50, 1000, 512, 128).list_windows() == windows
    windows = plan_layout(4, 4, 3, 1).list_windows()
    assert [window[:2] for window in windows] == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_a_picture_of_4096_pixels_takes_121_tiles():
    windows = plan_layout(4096, 4096, 512, 128).list_windows()
    assert len(windows) == 121
    assert all(type(value) is int for window in windows for value in window)


@COUNTS
def test_fixed_tiles_cover_any_picture_and_are_the_fewest(count):
    for height, width, numbers in sizes(count, seed=0):
        tile = numbers.randint(1, 1000) if max(height, width) < 1000 else numbers.randint(64, 1000)
        overlap = numbers.randint(0, tile * 3 // 4)
        layout = plan_layout(height, width, tile, overlap)
        for starts, length, side in axes(layout):
            require_cover(starts, length, side)
            shared = overlaps(starts, length)
            assert all(pixels == overlap for pixels in shared[:-1])
            assert not shared or shared[-1] >= overlap
            one_less = len(starts) - 1
            assert one_less * tile - (one_less - 1) * overlap < side or one_less == 0


@COUNTS
def test_adaptive_tiles_cover_any_picture_and_share_a_quarter_to_a_half(count):
    for height, width, numbers in sizes(count, seed=1):
        tile = numbers.randint(128, 1000)
        layout = plan_adaptive_layout(height, width, tile, grid(numbers))
        for starts, length, side in axes(layout):
            require_cover(starts, length, side)
            shared = overlaps(starts, length)
            assert all(tile / 4 <= pixels <= tile / 2 for pixels in shared[:-1])
            assert not shared or shared[-1] >= tile / 4
        most = len(plan_layout(height, width, tile, tile // 2).list_windows())
        assert len(layout.list_windows()) <= most


@pytest.mark.parametrize("tile", range(1, 10))
def test_adaptive_tiles_may_be_tiny(tile):
    for side in range(1, 40):
        for starts, length, end in axes(plan_adaptive_layout(side, 7, tile, [[0.4, 0.6], [1, 0]])):
            require_cover(starts, length, end)


def test_adaptive_is_a_quarter_where_all_is_calm_and_a_half_where_all_is_complex():
    for height, width, numbers in sizes(300, seed=2):
        tile = numbers.randint(128, 1000)
        for value, overlap in ((0, ceil(tile / 4)), (1, tile // 2)):
            adaptive = plan_adaptive_layout(height, width, tile, [[value] * 5] * 3)
            assert adaptive == plan_layout(height, width, tile, overlap)


def test_tiles_begin_on_multiples():
    # Enlarged four times: on pixels of the source.
    for height, width, numbers in sizes(300, seed=3):
        tile = numbers.randint(128, 1000)
        overlap = numbers.randint(0, tile // 2)
        fixed = plan_layout(height, width, tile, overlap, multiple_of=4)
        adaptive = plan_adaptive_layout(height, width, tile, grid(numbers), multiple_of=4)
        for layout, least, most in ((fixed, overlap, overlap + 3), (adaptive, tile / 4, tile / 2)):
            for starts, length, side in axes(layout):
                require_cover(starts, length, side)
                assert all(start % 4 == 0 for start in starts[:-1])
                shared = overlaps(starts, length)
                assert all(least <= pixels <= most for pixels in shared[:-1])
                assert not shared or shared[-1] >= least


def test_neighbours_nearer_than_a_multiple_stay_where_they_are():
    assert plan_layout(1, 20, 8, 6, multiple_of=4) == plan_layout(1, 20, 8, 6)
    assert plan_adaptive_layout(1, 20, 8, [[1]], multiple_of=16) == plan_layout(1, 20, 8, 4)


def test_adaptive_is_dense_only_where_the_picture_is_complex():
    upper_half_calm = plan_adaptive_layout(4096, 4096, 512, [[0, 0], [1, 1]])
    every_256 = [*range(1920, 3584, 256), 3584]
    assert [row.y for row in upper_half_calm.rows] == [*range(0, 1920, 384), *every_256]
    assert [len(row.xs) for row in upper_half_calm.rows] == [11] * 5 + [13] + [15] * 7
    # One column of it is enough to bring the rows near.
    right_half_calm = plan_adaptive_layout(4096, 4096, 512, [[1, 0]])
    columns = (*range(0, 1792, 256), *range(1792, 3584, 384), 3584)
    assert right_half_calm.rows == tuple(TileRow(y, columns) for y in range(0, 3585, 256))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 10, 4, 1), "at least one pixel, got 10 x 0"),
        ((10, -1, 4, 1), "at least one pixel, got -1 x 10"),
        ((10, 10, 0, 0), "tile must be at least 1 pixel, got 0"),
        ((10, 10, 4, -1), "overlap must be 0 pixels or more, got -1"),
        ((10, 10, 4, 4), "overlap of 4 px on tiles of 4 px: choose .* at most half a tile, 2 px"),
        ((1, 1, 512, 600), "overlap of 600 px on tiles of 512 px"),
    ],
)
def test_refuses_what_no_layout_can_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan_layout(*arguments)


@pytest.mark.parametrize(
    ("complexity", "message"),
    [
        ([], "must be a grid"),
        ([[]], "must be a grid"),
        ([[0, 1], [0]], "rows of equal length"),
        ([[0, 1.5]], "from 0 .* to 1"),
        ([[float("nan")]], "from 0 .* to 1"),
    ],
)
def test_refuses_a_grid_that_is_none(complexity, message):
    with pytest.raises(ValueError, match=message):
        plan_adaptive_layout(10, 10, 4, complexity)
    with pytest.raises(ValueError, match="at least one pixel"):
        plan_adaptive_layout(0, 10, 4, [[0]])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        pytest.param((1, 512), [(0, 1)], id="one pixel"),
        pytest.param((403, 403, 4), [(0, 403)], id="one part begins nowhere else"),
        pytest.param((513, 512), [(0, 256), (256, 513)], id="a pixel more makes two halves"),
        pytest.param((8192, 1904, 4), [(0, 1636), (1636, 3276), (3276, 4912), (4912, 6552), (6552, 8192)], id="4x"),
        pytest.param((10, 4, 8), [(0, 3), (3, 6), (6, 10)], id="a multiple beyond the longest part"),
    ],
)  # fmt: skip
def test_a_side_is_split_into_nearly_equal_parts(arguments, parts):
    assert split_side(*arguments) == parts


def test_parts_of_any_side_abut_and_are_the_fewest():
    numbers = random.Random(4)
    for _ in range(3000):
        side, longest = numbers.randint(1, 9000), numbers.randint(1, 3000)
        multiple = numbers.choice([1, 1, 2, 4, 8, 64])
        parts = split_side(side, longest, multiple)
        bounds = [0, *(end for _, end in parts)]
        assert parts == [*pairwise(bounds)]
        assert bounds[-1] == side
        assert all(0 < end - start <= longest for start, end in parts)
        if side > longest >= multiple:
            assert all(start % multiple == 0 for start, _ in parts)
            assert len(parts) == ceil(ceil(side / multiple) / (longest // multiple))


@pytest.mark.parametrize(
    ("height", "width", "tile", "overlap"),
    [(100, 260, 64, 16), (64, 64, 64, 0), (90, 1, 30, 0), (300, 301, 128, 96)],
)
def test_cores_cover_the_image_once_and_end_where_overlaps_do_in_half(height, width, tile, overlap):
    layout = plan_layout(height, width, tile, overlap)
    cores, windows = layout.list_cores(), layout.list_windows()
    assert sum(core.width * core.height for core in cores) == height * width
    for core, window in zip(cores, windows, strict=True):
        assert window.x <= core.x < core.x + core.width <= window.x + window.width
        assert window.y <= core.y < core.y + core.height <= window.y + window.height
    if overlap == 0 and height % tile == 0:
        assert [tuple(core) for core in cores] == [tuple(window) for window in windows]
    columns = len(layout.rows[0].xs)
    if columns > 1:
        assert cores[1].x == (windows[0].width + windows[1].x) / 2
