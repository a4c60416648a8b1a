from itertools import pairwise
from math import inf, log, nan

import pytest
import torch

from coz.chain.zoom_chain import ZoomChain
from coz.geometry import Target, Window, plan_zoom
from coz.render.zoom_video import ZoomVideo, plan_zoom_positions
from coz.resample import resize


def smooth_chain(height=64, width=64, size=64, scale=4.0, steps=2, target=(0.3, 0.8)):
    """A chain whose deeper frames show just what the source does: a slope in each direction."""
    plan = plan_zoom(height, width, steps, scale, Target(*target), size=size)
    windows = (plan.first.window, *(step.window for step in plan.steps))

    def slope(begin, length, side, full):
        return (begin + (torch.arange(side, dtype=torch.float64) + 0.5) * length / side) / full

    x, y, wide, tall = 0.0, 0.0, float(width), float(height)
    frames = []
    for layer in range(steps + 2):
        h, w = (height, width) if layer == 0 else (plan.first.height, plan.first.width)
        if layer:
            window = windows[layer - 1]
            above_h, above_w = frames[-1].shape[-2:]
            x, y = x + window.x * wide / above_w, y + window.y * tall / above_h
            wide, tall = wide * window.width / above_w, tall * window.height / above_h
        across = slope(x, wide, w, width).expand(h, w)
        down = slope(y, tall, h, height)[:, None].expand(h, w)
        frames.append(torch.stack([across, down, across * 0 + 0.5])[None].float())
    return ZoomChain(scale, tuple(frames), windows, ("",) * steps, (0,) * steps, plan.target)


def seen(zoom, t):
    """What a smooth chain shows at place ``t``, in closed form."""
    view, source = zoom.find_view(0, t), zoom.chain.frames[0]
    height, width = source.shape[-2:]
    x = view.x + (torch.arange(zoom.width) + 0.5) * view.width / zoom.width
    y = view.y + (torch.arange(zoom.height) + 0.5) * view.height / zoom.height
    return (x / width).float(), (y / height).float()


def differences(zoom, times):
    frames = list(zoom.render_frames(times))
    return torch.stack([(b - a).abs().mean() for a, b in pairwise(frames)])


@pytest.mark.parametrize(
    ("arguments", "count", "resting"),
    [
        ((8, 0.5, 24), 216, 12),
        ((2, 0, 24), 48, 1),
        ((1.3, 0.25, 29.97), 54, 8),
        ((0.01, 0, 1), 2, 1),
    ],
)
def test_times_rest_at_both_ends_and_move_steadily_between(arguments, count, resting):
    times = plan_zoom_positions(*arguments)
    assert len(times) == count
    assert (times.count(0.0), times.count(1.0)) == (resting, resting)
    seconds, hold, _ = arguments
    steps = torch.tensor(times[resting : count - resting], dtype=torch.float64).diff()
    speed = (1 + 2 * hold / seconds) / (count - 1)
    torch.testing.assert_close(steps, torch.full_like(steps, speed))


def test_smooth_times_start_and_stop_gently():
    steady, smooth = plan_zoom_positions(2, 0.5, 24), plan_zoom_positions(2, 0.5, 24, "smooth")
    assert smooth == [t * t * (3 - 2 * t) for t in steady]
    assert smooth[-1] == 1.0


@pytest.mark.parametrize(
    "arguments",
    [(-1, 0, 24), (1, -1, 24), (1, 0, 0), (inf, 0, 24), (1, inf, 24), (1, 0, inf), (nan, 0, 1)],
)
def test_times_refuse_what_is_no_film(arguments):
    with pytest.raises(ValueError, match=r"must be at least 0 seconds and fps above 0, .* got"):
        plan_zoom_positions(*arguments)


def test_zoom_begins_with_the_whole_source_and_ends_with_the_deepest_frame(make_chain):
    chain = make_chain(height=300, width=400, steps=2)
    before = [frame.clone() for frame in chain.frames]
    zoom = ZoomVideo(chain, 64, 64)
    square = Window(100, 0, 300, 300)  # the right of the picture: the target lies at 0.9
    assert zoom.start == square
    whole = resize(chain.frames[0], 64, 64, box=square).clamp(0, 1)
    assert torch.equal(zoom.render_frame(0), whole)
    assert torch.equal(zoom.render_frame(1), chain.frames[-1])
    zoom.render_frame(1).zero_()  # a frame is a copy
    assert all(torch.equal(a, b) for a, b in zip(before, chain.frames, strict=True))


def test_a_source_of_the_films_shape_is_whole_at_first():
    chain = smooth_chain(height=48, width=96, size=32)
    assert torch.equal(ZoomVideo(chain, 32, 64).render_frame(0), resize(chain.frames[0], 32, 64))


def test_the_way_to_the_first_frame_takes_its_share(make_chain):
    larger = make_chain(height=300, width=400, steps=2)
    for chain, steps in ((larger, 2 + log(300 / 64) / log(4)), (smooth_chain(steps=3), 3)):
        assert ZoomVideo(chain, 64, 64).steps == pytest.approx(steps)


@pytest.mark.parametrize("size", [(64, 64), (36, 64), (100, 50)], ids=["frame", "wide", "tall"])
def test_the_view_shrinks_steadily_towards_a_point_fixed_on_the_screen(size, make_chain):
    zoom = ZoomVideo(make_chain(steps=3, scale=3.2), *size)
    views = [zoom.find_view(0, k / 20) for k in range(21)]
    x, y, width, height = views[7]
    point = x + zoom.x.anchor * width, y + zoom.y.anchor * height
    shrink = views[1].width / views[0].width, views[1].height / views[0].height
    for k, (x, y, width, height) in enumerate(views):
        assert width == pytest.approx(views[0].width * shrink[0] ** k)
        assert height == pytest.approx(views[0].height * shrink[1] ** k)
        assert x + zoom.x.anchor * width == pytest.approx(point[0], abs=1e-9)
        assert y + zoom.y.anchor * height == pytest.approx(point[1], abs=1e-9)
    assert tuple(views[0]) == pytest.approx(tuple(zoom.start))
    assert tuple(zoom.find_view(4, 1.0)) == pytest.approx(tuple(zoom.end), abs=1e-9)


@pytest.mark.parametrize("scale", [4.0, 8.0])
def test_sixteen_steps_down_the_views_are_still_exact(scale):
    """Far below what float32, and at 8^16 float64, tells apart in the source's coordinates."""
    chain = smooth_chain(steps=16, scale=scale, target=(0.317, 0.743))
    zoom = ZoomVideo(chain, 64, 64)
    for layer in range(17):
        window = chain.windows[layer]
        for k in range(201):
            inner = zoom.find_view(layer + 1, k / 200)
            if inner.width > 64 * scale**2:  # far out it is not looked at
                continue
            outer = zoom.find_view(layer, k / 200)
            assert outer.x == pytest.approx(window.x + inner.x * window.width / 64, abs=1e-9)
            assert outer.width == pytest.approx(inner.width * window.width / 64, rel=1e-12)
    assert torch.equal(zoom.render_frame(1), chain.frames[-1])
    assert all(frame.isfinite().all() for frame in zoom.render_frames([k / 50 for k in range(51)]))


@pytest.mark.parametrize(
    "chain",
    [
        *({"target": (0.5, 0.5)}, {"target": (0.02, 0.97)}, {"scale": 1.5, "steps": 5}),
        *({"scale": 8.0, "steps": 1}, {"height": 200, "width": 300}),
    ],
    ids=["centre", "corner", "1.5x", "8x", "larger source"],
)
def test_layers_that_agree_look_like_one_picture(chain):
    zoom = ZoomVideo(smooth_chain(**chain), 64, 64)
    for k in range(60):
        across, down = seen(zoom, k / 59)
        frame = zoom.render_frame(k / 59)
        # A layer's outermost pixels have no neighbours to be enlarged with.
        view = zoom.find_view(0, k / 59)
        height, width = zoom.chain.frames[0].shape[-2:]
        assert (frame[0, 0] - across).abs().max() < 0.03 * view.width / width
        assert (frame[0, 1] - down[:, None]).abs().max() < 0.03 * view.height / height
        assert (frame[0, 2] - 0.5).abs().max() < 1e-5


@pytest.mark.parametrize("target", [(0.5, 0.5), (0.9, 0.2)], ids=["centre", "corner"])
def test_no_jump_at_a_layer_change(target):
    """Neighbours differ, over the size of the view, at most 5 % more there than in mid-step."""
    zoom = ZoomVideo(smooth_chain(steps=3, target=target), 64, 64)
    times = [k / 144 for k in range(145)]  # 48 a step; layers change at 0, 48, 96, 144
    sizes = torch.tensor([zoom.find_view(0, t).width for t in times[:-1]])
    changes = differences(zoom, times) / sizes
    middle = torch.cat([changes[start + 12 : start + 36] for start in (0, 48, 96)])
    assert changes.max() < 1.05 * middle.max()
    assert changes.min() > 0.95 * middle.min()


@pytest.mark.parametrize("center", [(0.5, 0.5), (0.9, 0.1)], ids=["centre", "corner"])
def test_layers_that_do_not_agree_change_softly(center, make_chain):
    """On noise, the worst case, no frame differs from the last much more than its neighbours do."""
    zoom = ZoomVideo(make_chain(height=64, width=64, size=32, steps=3, center=center), 32, 32)
    changes = differences(zoom, [k / 800 for k in range(801)])
    spikes = changes[1:-1] / torch.maximum(changes[:-2], changes[2:])
    assert spikes.max() < 1.1


def test_a_large_source_is_halved_first_and_looks_the_same(make_chain):
    chain = make_chain(height=900, width=1200, size=64, steps=1)
    zoom = ZoomVideo(chain, 64, 64)
    for t in (0.0, 0.1, 0.2):
        view = Window(*(max(value, 0) for value in zoom.find_view(0, t)))
        whole = resize(chain.frames[0], 64, 64, box=view).clamp(0, 1)
        # Of noise, the worst case, shrinking leaves little; halving changes a quarter of that.
        assert (zoom.render_frame(t) - whole).std() < 0.27 * whole.std()
        assert len(zoom.source_pyramid) == 3
    changes = differences(zoom, [k / 200 for k in range(100)])
    assert (changes[1:] / changes[:-1]).max() < 1.2


@pytest.mark.parametrize("steps", [1, 16])
@pytest.mark.parametrize("side", [16, 17])
def test_small_frames(side, steps):
    chain = smooth_chain(side, side, 16, steps=steps)
    frames = list(ZoomVideo(chain, 16, 16).render_frames(plan_zoom_positions(1, 0.1, 12)))
    assert all(frame.shape == (1, 3, 16, 16) for frame in frames)
    assert all(frame.min() >= 0 and frame.max() <= 1 for frame in frames)


def test_another_shape_is_cut_around_the_target():
    chain = smooth_chain(height=90, width=160, size=64, target=(0.5, 0.5))
    zoom = ZoomVideo(chain, 18, 32)
    assert tuple(zoom.start) == (0, 0, 160, 90)
    assert tuple(zoom.end) == (0, 14, 64, 36)
    last = zoom.render_frame(1)
    torch.testing.assert_close(last, resize(chain.frames[-1], 18, 32, box=zoom.end))
    # Larger than the frames: the same, enlarged.
    assert ZoomVideo(chain, 180, 320).end == zoom.end


def test_a_target_at_the_edge_stays_in_the_cut():
    zoom = ZoomVideo(smooth_chain(height=160, width=90, size=64, target=(0.5, 0.0)), 18, 32)
    assert (zoom.start.y, zoom.end.y) == (0, 0)


def test_a_rest_is_rendered_once():
    frames = list(ZoomVideo(smooth_chain(), 64, 64).render_frames([0.0, 0.0, 0.5, 1.0, 1.0]))
    assert frames[0] is frames[1]
    assert frames[3] is frames[4]
    assert len({id(frame) for frame in frames}) == 3


def test_zoom_refuses_an_empty_frame(make_chain):
    with pytest.raises(ValueError, match="a frame must hold at least one pixel, got 64 x 0"):
        ZoomVideo(make_chain(), 0, 64)
