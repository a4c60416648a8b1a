import pytest
import torch

from coz.inversion import START_TIMESTEPS, enlarge_unclamped, plan_timesteps


@pytest.mark.parametrize(
    ("steps", "start", "timesteps"),
    [
        # InvSR's own lists
        (1, None, [200]),
        (2, None, [200, 100]),
        (3, None, [200, 100, 50]),
        (4, None, [200, 150, 100, 50]),
        (5, None, [250, 200, 150, 100, 50]),
        # from other starts
        (1, 100, [100]),
        (2, 100, [100, 50]),
        (2, 250, [250, 100]),
        (3, 250, [250, 150, 50]),
    ],
)
def test_timesteps(steps, start, timesteps):
    assert plan_timesteps(steps, start) == timesteps


@pytest.mark.parametrize("start", START_TIMESTEPS)
def test_every_possible_number_of_steps_falls_from_the_start(start):
    for steps in range(1, start // 50 + 1):
        timesteps = plan_timesteps(steps, start)
        assert (timesteps[0], len(timesteps)) == (start, steps)
        assert sorted(set(timesteps), reverse=True) == timesteps
        assert timesteps[-1] >= 50


@pytest.mark.parametrize(
    ("steps", "start", "expected"),
    [
        (5, 100, "from 1 to 2 with start 100, but found 5"),
        (0, 200, "from 1 to 4"),
        (6, None, "from 1 to 5 with start 250, but found 6"),
        (1, 120, "one of"),
    ],
)
def test_what_is_impossible_is_refused(steps, start, expected):
    with pytest.raises(ValueError, match=expected):
        plan_timesteps(steps, start)


def test_the_enlargement_keeps_overshoots():
    enlarged = enlarge_unclamped(torch.tensor([0.0, 0, 1, 1]).expand(1, 3, 4, 4))
    assert enlarged.shape == (1, 3, 16, 16)
    assert enlarged.min() < 0
    assert enlarged.max() > 1
