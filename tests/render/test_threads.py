"""Frames that several threads render: the bytes of one thread, in order, with bounded memory."""

import threading

import pytest
import torch

from coz.render.threads import map_in_threads
from coz.render.zoom_video import ZoomVideo, plan_zoom_positions


@pytest.mark.parametrize("easing", ["none", "smooth"])
def test_two_threads_render_the_bytes_of_one(make_chain, easing):
    chain = make_chain(height=300, width=400, size=64, steps=2)
    positions = plan_zoom_positions(2, 0.2, 12, easing)
    one, two, direct = (
        list(ZoomVideo(chain, 48, 64).render_frames(positions, threads)) for threads in (1, 2, 5)
    )
    for first, second, third, t in zip(one, two, direct, positions, strict=True):
        assert torch.equal(first, second)
        assert torch.equal(first, third)
        assert torch.equal(first, ZoomVideo(chain, 48, 64).render_frame(t))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_so_many_results_exist_at_once_and_as_many_threads_work(threads):
    started, running, most = [], set(), 0
    everybody = threading.Barrier(threads)

    def work(value):
        nonlocal most
        started.append(value)
        running.add(value)
        most = max(most, len(running))
        if value < threads:
            everybody.wait(timeout=30)  # ends only if all threads work at the same time
        running.discard(value)
        return value

    for count, value in enumerate(map_in_threads(work, range(20), threads)):
        assert value == count
        assert len(started) <= count + 1 + threads
    assert most == threads
    assert sorted(started) == [*range(20)]


def test_a_closed_iterator_starts_nothing_more():
    started = []
    results = map_in_threads(started.append, range(100), 2)
    next(results)
    results.close()
    count = len(started)
    assert count <= 3
    assert not any(thread.name.startswith("ThreadPoolExecutor") for thread in threading.enumerate())
    assert len(started) == count


def test_an_error_of_a_thread_arrives_in_order():
    def fail(value):
        if value == 3:
            raise ValueError("of the third")
        return value

    results = map_in_threads(fail, range(10), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="of the third"):
        next(results)


@pytest.mark.parametrize("is_inference", [False, True])
def test_threads_have_the_inference_mode_of_the_caller(is_inference):
    with torch.inference_mode(is_inference):
        (made,) = map_in_threads(torch.zeros, [2], 1)
    assert made.is_inference() == is_inference
