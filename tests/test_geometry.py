import pytest
import torch

from coz.geometry import Target, Window, carry_target, place_first_frame, place_window, plan_steps
from coz.resample import crop, resize

CENTER = Target(0.5, 0.5)
FRAME = "native pixels"


@pytest.mark.parametrize(
    ("height", "width", "scale", "target", "expected"),
    [
        pytest.param(512, 512, 4.0, CENTER, (192, 192, 128, 128), id="the paper's"),
        pytest.param(512, 512, 1.6, CENTER, (96, 96, 320, 320), id="1.6 is exact"),
        pytest.param(512, 512, 2.56, CENTER, (156, 156, 200, 200), id="2.56 is exact"),
        pytest.param(512, 512, 3.2, CENTER, (176, 176, 160, 160), id="3.2 is exact"),
        pytest.param(512, 512, 5.12, CENTER, (206, 206, 100, 100), id="5.12 is exact"),
        pytest.param(512, 512, 6.4, CENTER, (216, 216, 80, 80), id="6.4 is exact"),
        pytest.param(805, 805, 1.61, CENTER, (152, 152, 500, 500), id="499.99... in floats"),
        pytest.param(427, 640, 4.0, CENTER, (240, 160, 160, 106), id="odd height: floor"),
        pytest.param(512, 512, 4.0, Target(0, 0), (0, 0, 128, 128), id="upper left corner"),
        pytest.param(512, 512, 4.0, Target(1, 1), (384, 384, 128, 128), id="lower right corner"),
        pytest.param(512, 512, 4.0, Target(0.3, 0.6), (90, 243, 128, 128), id="off centre"),
        pytest.param(512, 512, 1.0, Target(0.9, 0.1), (0, 0, 512, 512), id="no zoom"),
        pytest.param(8, 8, 8.0, CENTER, (3, 3, 1, 1), id="a one-pixel window"),
        pytest.param(3, 9, 4.0, CENTER, (3, 1, 2, 1), id="one pixel high"),
        pytest.param(1, 1, 8.0, CENTER, (0, 0, 1, 1), id="one pixel in all"),
    ],
)
def test_zoom_window(height, width, scale, target, expected):
    assert place_window(height, width, scale, target) == Window(*expected)


@pytest.mark.parametrize("scale", [1.5, 1.6, 2.56, 3.2, 4.0, 5.12, 6.4, 8.0])
@pytest.mark.parametrize("side", [1, 2, 7, 97, 512, 640, 4096])
def test_window_lies_inside_the_frame_and_holds_the_target(side, scale):
    for center in torch.linspace(0, 1, 101).tolist():
        window = place_window(side, side, scale, Target(center, center))
        assert window.x >= 0
        assert window.x + window.width <= side
        # 1e-6: EDGE_TOLERANCE, by which a side is rounded up.
        assert window.x <= center * side + 1e-6
        assert center * side <= window.x + window.width + 1e-6


@pytest.mark.parametrize("scale", [1.6, 3.2, 4.0, 6.4])
@pytest.mark.parametrize(("height", "width"), [(512, 512), (427, 640)])
@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)], ids=str)
def test_eight_steps_follow_one_marked_pixel(corner, height, width, scale):
    row, column = corner[0] % height, corner[1] % width
    frame = torch.zeros(1, 1, height, width)
    frame[..., row, column] = 1
    target = Target((column + 0.5) / width, (row + 0.5) / height)
    for step in plan_steps(height, width, scale, 8, target):
        frame = resize(crop(frame, step.window), height, width, "nearest")
        target = carry_target(height, width, step.window, step.target)
        y = min(int(target.y * height), height - 1)
        x = min(int(target.x * width), width - 1)
        assert frame[0, 0, y, x] == 1


def test_clamped_window_aims_the_next_step_at_the_target_not_at_its_middle():
    first, second = plan_steps(512, 512, 4.0, 2, Target(0.01, 0.5))
    assert first.window == Window(0, 192, 128, 128)
    assert second.target == pytest.approx((0.04, 0.5))
    assert second.window == Window(0, 192, 128, 128)


@pytest.mark.parametrize("scale", [1.5, 1.6, 3.2, 4.0, 8.0])
@pytest.mark.parametrize("side", range(1, 16))
def test_a_target_on_a_windows_edge_stays_in_range(side, scale):
    for center in range(0, 10001, 9):
        for step in plan_steps(side, side, scale, 6, Target(center / 10000, center / 10000)):
            assert all(0 <= place <= 1 for place in step.target)


def test_a_longer_plan_begins_with_the_shorter_one():
    target = Target(0.123, 0.456)
    assert plan_steps(427, 640, 3.2, 5, target)[:4] == plan_steps(427, 640, 3.2, 4, target)


@pytest.mark.parametrize(
    ("height", "width", "frame", "target", "size", "window"),
    [
        pytest.param(3000, 4000, "native pixels", CENTER, (512, 512), (1744, 1244, 512, 512), id="native"),
        pytest.param(3000, 4000, "native pixels", Target(1, 0), (512, 512), (3488, 0, 512, 512), id="native, corner"),
        pytest.param(300, 700, "native pixels", CENTER, (300, 512), (94, 0, 512, 300), id="native, one side smaller"),
        pytest.param(100, 200, "native pixels", CENTER, (100, 200), (0, 0, 200, 100), id="native, smaller"),
        pytest.param(768, 1024, "whole picture square", CENTER, (512, 512), (85 * 1024 / 682, 0, 512 * 1024 / 682, 768), id="square: long side truncated"),
        pytest.param(561, 561, "whole picture square", CENTER, (512, 512), (0, 0, 561, 561), id="square: short side exact (upstream: 511)"),
        pytest.param(1024, 2048, "whole picture", CENTER, (512, 1024), (0, 0, 2048, 1024), id="whole picture"),
        pytest.param(1, 1, "whole picture", CENTER, (512, 512), (0, 0, 1, 1), id="one pixel"),
        pytest.param(3, 2000, "whole picture square", CENTER, (512, 512), (170410 * 2000 / 341333, 0, 512 * 2000 / 341333, 3), id="a thin strip: nothing large on the way"),
    ],
)  # fmt: skip
def test_first_frame(height, width, frame, target, size, window):
    first = place_first_frame(height, width, 512, frame, target)
    assert (first.height, first.width) == size
    assert first.window == pytest.approx(window)
    x = first.window.x + first.target.x * first.window.width
    y = first.window.y + first.target.y * first.window.height
    assert (x, y) == pytest.approx((target.x * width, target.y * height))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: place_window(512, 512, 0.5, CENTER), "scale must be at least 1, got 0.5"),
        (lambda: place_window(9, 9, float("nan"), CENTER), "scale must be at least 1, got nan"),
        (lambda: place_window(0, 512, 4, CENTER), "at least one pixel, got a side of 0"),
        (lambda: place_window(9, 9, 4, Target(1.5, 0)), "center_x must be a fraction .* got 1.5"),
        (lambda: place_window(9, 9, 4, Target(0, -0.1)), "center_y must be a fraction .* got -0.1"),
        (lambda: place_window(9, 9, 4, Target(float("nan"), 0)), "center_x .* got nan"),
        (lambda: place_first_frame(9, 9, 0, FRAME, CENTER), "size must be at least 1 pixel"),
        (lambda: place_first_frame(0, 9, 8, "whole picture", CENTER), "got 9 x 0"),
    ],
)
def test_errors_name_the_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()
