import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from coz.tiles.complexity import find_easy_tiles, rate_complexity
from coz.tiles.layout import plan_layout
from coz.tiles.plan import plan_tiles
from tests.support.images import noise, read_photo


def grid(image, **options):
    return torch.tensor(rate_complexity(image, **options))


@pytest.mark.parametrize(
    ("name", "region", "low", "high"),
    [
        pytest.param("rocket.jpg", (0, 100, 208, 288), 0, 0.01, id="evening sky"),
        pytest.param("rocket.jpg", (200, 368, 0, 64), 0.5, 1, id="lattice tower"),
        pytest.param("astronaut.png", (304, 336, 416, 496), 0, 0.01, id="black table"),
        pytest.param("astronaut.png", (0, 80, 96, 144), 0, 0.2, id="painted backdrop"),
        pytest.param("astronaut.png", (32, 96, 176, 256), 0.9, 1, id="hair"),
        pytest.param("chelsea.png", (0, 64, 192, 288), 0.95, 1, id="fur"),
    ],
)
def test_photographs(name, region, low, high):
    top, bottom, left, right = region
    assert low <= grid(read_photo(name)[..., top:bottom, left:right]).mean() <= high


def test_a_cell_does_not_depend_on_the_rest_of_the_picture():
    image = read_photo("astronaut.png")
    alone = grid(image[..., 64:128, 128:256])
    # The last column looks across its bound for the gradient.
    assert torch.equal(grid(image)[4:8, 8:15], alone[:, :-1])


class NoFloatSumsByIndex(TorchDispatchMode):
    """Refuses sums that a GPU adds up in another order each time."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_index = ("index_add", "scatter_add", "scatter_reduce", "bincount", "index_put")
        if func._schema.name.removeprefix("aten::").startswith(by_index):
            tensors = [x for x in args if isinstance(x, torch.Tensor)]
            assert not any(x.is_floating_point() for x in tensors), func
        return func(*args, **(kwargs or {}))


def test_no_sum_depends_on_the_order_of_a_gpu():
    image = read_photo("chelsea.png")[..., :70, :130]
    with NoFloatSumsByIndex():
        rated = rate_complexity(image)
    assert rated == rate_complexity(image)


def test_constant_is_zero_whatever_its_value():
    for value in (0.0, 0.123, 0.5, 1.0):
        assert grid(torch.full((1, 3, 50, 70), value)).count_nonzero() == 0


def test_noise_is_one():
    assert grid(noise(1, 3, 64, 80)).eq(1).all()


@pytest.mark.parametrize("slope", [0.0005, 0.001])
def test_a_slow_shade_is_calm_also_where_it_crosses_a_level(slope):
    shade = (torch.arange(160) * slope + 0.3).expand(1, 3, 64, 160)
    assert grid(shade).max() < 0.01


def test_measures_are_weighed_as_documented():
    # Half black, half grey 0.055: deviation 0.0275, one step of 0.055 in 256 pixel pairs each way,
    # 1 bit: (0.35 + 0 + 0) / 3.
    image = torch.zeros(1, 3, 16, 16)
    image[..., 8:] = 0.055
    assert rate_complexity(image) == [[pytest.approx((0.0275 - 0.01) / 0.05 / 3, abs=1e-5)]]
    # Checkerboard of 0 and 0.06: deviation 0.03; every difference inside is 0.06.
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 0.06
    gradient = 2 * 15 * 16 * 0.06 / 2 / 256
    expected = ((0.03 - 0.01) / 0.05 + min(1, (gradient - 0.003) / 0.027) + 0) / 3
    assert rate_complexity(board.expand(1, 3, 16, 16)) == [[pytest.approx(expected, abs=1e-5)]]


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [
        *((1, 1, 1, 1), (1, 500, 1, 31), (500, 1, 31, 1), (15, 23, 1, 1), (30, 41, 2, 3)),
        *((427, 640, 27, 40), (50, 10000, 3, 625)),
    ],
)
def test_any_size_gives_a_grid_of_numbers_in_range(height, width, rows, columns):
    rated = grid(noise(1, 3, height, width, seed=1))
    assert rated.shape == (rows, columns)
    assert rated.min() >= 0
    assert rated.max() <= 1


def test_cells_lie_where_the_grid_says():
    image = torch.full((1, 3, 90, 110), 0.5)
    image[..., 45:, 66:88] = torch.rand(45, 22, generator=torch.Generator().manual_seed(2))
    # Cells of 22.5 x 22 pixels: rows 2 and 3, column 3.
    rated = grid(image, cell=22)
    assert rated.shape == (4, 5)
    assert rated[2:, 3].eq(1).all()
    assert rated[:1].count_nonzero() == 0
    assert rated[:, [0, 1, 4]].count_nonzero() == 0


def test_refuses_what_is_no_picture():
    for shape in ((2, 3, 8, 8), (1, 3, 0, 8)):
        with pytest.raises(ValueError, match="a single image"):
            rate_complexity(torch.zeros(shape))
    with pytest.raises(ValueError, match="cell must be at least 1"):
        rate_complexity(torch.zeros(1, 3, 8, 8), cell=0)


def test_tiles_are_easy_where_every_cell_of_their_core_is():
    layout = plan_layout(256, 256, 128, 64)  # cores end at 96 and 160
    ratings = [[0.0] * 4 for _ in range(4)]  # of 64 pixels
    assert find_easy_tiles(ratings, layout, 0.2) == list(range(9))
    ratings[0][0] = 0.2
    assert find_easy_tiles(ratings, layout, 0.2) == list(range(1, 9))
    assert find_easy_tiles(ratings, layout, 0.21) == list(range(9))
    ratings[0][0], ratings[1][2] = 0.0, 1.0
    assert find_easy_tiles(ratings, layout, 0.2) == [0, 3, 6, 7, 8]
    assert find_easy_tiles(ratings, layout, 1) == list(range(9))
    assert find_easy_tiles(ratings, layout, 0) == []


def test_half_a_sky_is_easy_at_the_defaults_of_full_image_sr():
    """62 % of this photograph are sky, between towers."""
    image = read_photo("rocket.jpg")
    ratings = rate_complexity(image)
    height, width = image.shape[-2:]
    first = plan_tiles(height, width, 4.0, 512, 128)
    second = plan_tiles(first.height, first.width, 4.0, 512, 128)
    assert [len(find_easy_tiles(ratings, layout, 0.2)) for layout in (first, second)] == [11, 221]
    assert [len(layout.list_windows()) for layout in (first, second)] == [35, 486]
