import pytest
import torch

from coz.chain import ZoomChain
from coz.geometry import Target, Window, plan_steps
from coz.resample import crop, resize
from coz.view import factor_label, strip, zoom_frames


def smooth_chain(scale=4.0, steps=2, target=Target(0.3, 0.8)):  # noqa: B008
    """A chain whose deeper frames show just what the first one does."""
    ramp = torch.linspace(0, 1, 64)
    source = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), ramp.expand(64, 64)])[
        None
    ]
    frames, windows = [source, source], [Window(0, 0, 64, 64)]
    for step in plan_steps(64, 64, scale, steps, target):
        frames.append(resize(crop(frames[-1], step.window), 64, 64))
        windows.append(step.window)
    return ZoomChain(scale, tuple(frames), tuple(windows), ("",) * steps, (0,) * steps, target)


def test_strip_shows_every_scale_side_by_side(make_chain):
    chain = make_chain(steps=3)
    before = [frame.clone() for frame in chain.frames]
    picture = strip(chain, gap=8)
    assert picture.shape == (1, 3, 64, 4 * 64 + 3 * 8)
    assert (picture[..., 64:72] == 1).all()
    # The deepest frame has no next window: above its label it is the frame, rounded to 8 bits.
    shown = picture[..., :40, 3 * 72 :]
    assert (shown - chain.frames[4][..., :40, :]).abs().max() <= 0.5 / 255 + 1e-6
    assert all(torch.equal(a, b) for a, b in zip(before, chain.frames, strict=True))


def test_labels_come_from_the_windows(make_chain):
    assert [factor_label(make_chain(), layer) for layer in range(1, 5)] == [
        "1x",
        "4x",
        "16x",
        "64x",
    ]
    assert factor_label(make_chain(scale=3.0), 2) == "3.05x"
    wide = smooth_chain()
    other = (*wide.windows[:1], Window(0, 0, 16, 20), *wide.windows[2:])
    chain = ZoomChain(4.0, wide.frames, other, wide.prompts, wide.seeds, wide.target)
    assert factor_label(chain, 2) == "4x3.2x"


def test_zoom_begins_with_the_whole_source_and_ends_with_the_deepest_frame(make_chain):
    chain = make_chain(height=300, width=400, steps=2)
    frames = list(zoom_frames(chain, 5))
    assert len(frames) == 3 * 5 + 1
    assert all(frame.shape == (1, 3, 64, 64) for frame in frames)
    square = Window(100, 0, 300, 300)  # the right of the picture: the target lies at 0.9
    assert torch.equal(frames[0], resize(chain.frames[0], 64, 64, box=square).clamp(0, 1))
    assert torch.equal(frames[5], chain.frames[1])
    assert torch.equal(frames[-1], chain.frames[-1])


def test_a_source_that_is_the_first_frame_is_not_shown_twice():
    assert len(list(zoom_frames(smooth_chain(steps=2), 6))) == 2 * 6 + 1


def test_zoom_is_steady_and_has_no_jump_between_layers():
    frames = torch.cat(list(zoom_frames(smooth_chain(), 12)))
    # On a linear ramp each frame's spread is the view's width: it shrinks by 4 in 12 frames.
    middle = frames[:, 0, 32, 16:48]
    spread = middle[:, -1] - middle[:, 0]
    torch.testing.assert_close(
        spread[1:] / spread[:-1], torch.full((24,), 4 ** (-1 / 12)), rtol=0.02, atol=0
    )


def test_zoom_refuses_no_frames(make_chain):
    with pytest.raises(ValueError, match="frames_per_step must be at least 1, got 0"):
        next(zoom_frames(make_chain(), 0))
