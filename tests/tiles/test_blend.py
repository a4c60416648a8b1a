from math import cos, pi

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from coz.detail.fusion import map_detail
from coz.resample import crop
from coz.tiles.blend import TileBlend, compute_axis_weights
from coz.tiles.layout import plan_adaptive_layout, plan_layout
from tests.support.images import noise

LAYOUTS = {
    "one tile": plan_layout(40, 30, 64, 16),
    "one pixel": plan_layout(1, 1, 64, 16),
    "no overlap": plan_layout(40, 33, 8, 0),
    "a quarter": plan_layout(101, 67, 32, 8),
    "a half": plan_layout(101, 67, 32, 16),
    "the last one almost on the one before": plan_layout(25, 33, 16, 8),
    "all but a pixel": plan_layout(20, 23, 9, 8),
    "flat": plan_layout(3, 200, 32, 24),
    "adaptive": plan_adaptive_layout(211, 173, 32, [[0, 0.2, 0.1], [0.3, 1, 0.9], [1, 0, 0.5]]),
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request):
    return request.param


def draw_noise(layout):
    return noise(1, 3, layout.height, layout.width)


def canvas(layout):
    return torch.zeros(1, layout.height, layout.width, 3)


def blend(layout, image, order=None, by_detail=False):
    windows = layout.list_windows()
    target = TileBlend(layout, canvas(layout), by_detail)
    for index in order or range(len(windows)):
        target.add(index, crop(image, windows[index]))
    return target.out.movedim(-1, 1)


@pytest.mark.parametrize("by_detail", [False, True])
def test_tiles_of_a_picture_give_that_picture_back(layout, by_detail):
    image = draw_noise(layout)
    torch.testing.assert_close(blend(layout, image, by_detail=by_detail), image, atol=1e-6, rtol=0)


def test_a_constant_picture_stays_constant(layout):
    for value in (0.0, 0.3, 1.0):
        image = torch.full((1, 3, layout.height, layout.width), value)
        torch.testing.assert_close(blend(layout, image), image, atol=1e-6, rtol=0)


def test_weights_are_positive_and_sum_to_one(layout):
    rows = [row.y for row in layout.rows], layout.tile_height, layout.height
    columns = [(row.xs, layout.tile_width, layout.width) for row in layout.rows]
    for starts, length, side in (rows, *columns):
        total = torch.zeros(side)
        for start, weights in zip(starts, compute_axis_weights(tuple(starts), length), strict=True):
            assert weights.shape == (length,)
            assert weights.dtype == torch.float32
            assert 0 <= weights.min() <= weights.max() <= 1
            total[start : start + length] += weights
        torch.testing.assert_close(total, torch.ones(side), atol=2e-7, rtol=0)


def test_order_does_not_matter(layout):
    image = draw_noise(layout)
    backwards = list(reversed(range(len(layout.list_windows()))))
    found = blend(layout, image, backwards)
    torch.testing.assert_close(found, blend(layout, image), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("overlap", "rim"), [(1, 0), (2, 0), (4, 1), (64, 21), (95, 31), (96, 32), (128, 32), (200, 32)]
)
def test_neighbours_cross_in_the_middle_of_their_overlap(overlap, rim):
    first, second = compute_axis_weights((0, 300 - overlap), 300)
    fade = overlap - 2 * rim
    rise = [0.5 - 0.5 * cos(pi * (k + 0.5) / fade) for k in range(fade)]
    inside = [1] * (300 - overlap)
    expected = torch.tensor([*[0] * rim, *rise, *[1] * rim, *inside])
    torch.testing.assert_close(second, expected)
    torch.testing.assert_close(first, expected.flip(0))
    assert not second[:rim].any()
    assert not first[300 - rim :].any()


def test_a_tile_that_differs_leaves_no_step_at_its_edge():
    layout = plan_layout(1, 160, 64, 16)
    target = TileBlend(layout, canvas(layout))
    for index in range(len(layout.list_windows())):
        target.add(index, torch.full((1, 3, 1, 64), float(index % 2)))
    # The steepest pixel of a raised cosine of 6 pixels, between two rims of 5; a hard seam would be 1.
    assert target.out.diff(dim=2).abs().max() < pi / 2 / 6


def test_blends_into_a_part_of_a_larger_picture():
    layout = plan_layout(20, 30, 16, 4)
    picture = torch.full((1, 40, 50, 3), 0.5)
    part = picture[:, 7:27, 11:41]
    part.zero_()
    image = draw_noise(layout)
    target = TileBlend(layout, part)
    for index, window in enumerate(layout.list_windows()):
        target.add(index, crop(image, window))
    torch.testing.assert_close(part.movedim(-1, 1), image, atol=1e-6, rtol=0)
    part.fill_(0.5)
    assert (picture == 0.5).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_takes_any_float_dtype_and_leaves_the_tile_as_it_is(dtype):
    layout = plan_layout(20, 30, 16, 4)
    image = draw_noise(layout).to(dtype)
    before = image.clone()
    torch.testing.assert_close(blend(layout, image), before.float(), atol=1e-6, rtol=0)
    assert torch.equal(image, before)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_detail_is_three_tenths_of_a_weight(order):
    layout = plan_layout(32, 48, 32, 16)
    tiles = draw_noise(layout)[..., :32], torch.linspace(0, 1, 32).square().expand(1, 3, 32, 32)
    plain = [TileBlend(layout, canvas(layout)) for _ in tiles]
    guided = TileBlend(layout, canvas(layout), by_detail=True)
    weights = []
    for i in order:
        plain[i].add(i, torch.ones_like(tiles[i]))
        guided.add(i, tiles[i])
    for i, (window, tile) in enumerate(zip(layout.list_windows(), tiles, strict=True)):
        attention = torch.zeros_like(plain[i].out)
        seen = map_detail(tile, "gradient").movedim(1, -1)
        attention[:, :, int(window.x) : int(window.x) + 32] = seen
        weights.append(plain[i].out * (0.7 + 0.3 * attention))
    whole = [F.pad(tiles[0], (0, 16)).movedim(1, -1), F.pad(tiles[1], (16, 0)).movedim(1, -1)]
    expected = (weights[0] * whole[0] + weights[1] * whole[1]) / (weights[0] + weights[1])
    torch.testing.assert_close(guided.out, expected, atol=1e-6, rtol=0)


class Allocated(TorchFunctionMode):
    """Counts the bytes of every new storage."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_function__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if torch.is_tensor(result):
            given = {a.data_ptr() for a in arguments if torch.is_tensor(a)}
            if result._base is None and result.data_ptr() not in given:
                self.bytes += result.nbytes
        return result


def test_adding_allocates_less_than_a_tile():
    layout = plan_layout(512, 512, 64, 16)
    target = TileBlend(layout, canvas(layout))
    tile = torch.rand(1, 3, 64, 64)
    with Allocated() as allocated:
        target.add(5, tile)
    # The weights of the tile: one channel beside its three.
    assert allocated.bytes == tile.nbytes / 3


def test_refuses_sizes_that_do_not_fit():
    layout = plan_layout(20, 30, 16, 4)
    with pytest.raises(ValueError, match=r"out must have the shape \(1, 20, 30, 3\)"):
        TileBlend(layout, torch.zeros(1, 30, 20, 3))
    target = TileBlend(layout, canvas(layout))
    with pytest.raises(ValueError, match=r"tile 1 must have the shape \(1, 3, 16, 16\)"):
        target.add(1, torch.zeros(1, 3, 1, 1))
