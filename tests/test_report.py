"""A chain in figures: each step beside its input, the source and the ground truth."""

import math
from dataclasses import replace

import pytest
import torch
from PIL import Image

from coz.chain import ZoomChain
from coz.consistency import agreement
from coz.geometry import Target, Window, first_frame, plan_steps
from coz.metrics import color_drift, psnr, sharpness, ssim
from coz.report import measure, reach, report, source_agreement, true_view
from coz.resample import crop, resize
from tools.host import ROOT
from tools.picture import to_frame


@pytest.fixture(scope="module")
def photo():
    return to_frame(Image.open(ROOT / "pictures" / "astronaut.png").convert("RGB"))


def bicubic_chain(source, size=32, scale=2.0, steps=3, center=(0.5, 0.3), frame="native pixels"):
    """Of plain enlargements."""
    height, width = source.shape[-2:]
    first = first_frame(height, width, size, frame, Target(*center))
    frames = [resize(source, first.height, first.width, box=first.window).clamp(0, 1)]
    plan = plan_steps(first.height, first.width, scale, steps, first.target)
    for step in plan:
        small = crop(frames[-1], step.window)
        frames.append(resize(small, first.height, first.width).clamp(0, 1))
    return ZoomChain(
        scale=scale,
        frames=(source, *frames),
        windows=(first.window, *(step.window for step in plan)),
        prompts=("",) * steps,
        seeds=(0,) * steps,
        target=Target(*center),
    )


def with_frames(chain, frames):
    return replace(chain, frames=(chain.frames[0], *frames))


def test_each_figure_is_its_functions(make_chain):
    chain = make_chain()
    first, *steps = measure(chain)
    assert math.isnan(first.input)
    assert math.isnan(first.source)
    assert math.isnan(first.drift)
    assert first.sharpness == sharpness(chain.frames[1])
    assert [f.layer for f in steps] == [2, 3, 4]
    for f in steps:
        frame = chain.frames[f.layer]
        lq = crop(chain.frames[f.layer - 1], chain.windows[f.layer - 1])
        assert f.input == agreement(frame, lq)
        assert f.drift == color_drift(frame, lq)
        assert f.sharpness == sharpness(frame)
        assert math.isnan(f.psnr)
        assert math.isnan(f.ssim)


def test_the_first_step_repeats_the_source_as_it_repeats_its_input(make_chain):
    chain = make_chain()  # native pixels: x_0 is the source's own
    _, step, *_ = measure(chain)
    assert step.source == pytest.approx(step.input, abs=1e-4)


def test_only_whole_pixels_of_the_source_count(photo):
    """A view that begins in the middle of one, where each of them is an even square."""
    source = photo[..., 60:124, 180:244]
    chain = bicubic_chain(source, size=64, scale=2.0, steps=2)
    chain = replace(chain, windows=(chain.windows[0], Window(10, 12, 32, 32), Window(5, 7, 32, 32)))
    assert chain.window_in(3, 0) == (12.5, 15.5, 16, 16)
    even = source.repeat_interleave(4, -2).repeat_interleave(4, -1)

    def shown(x, y):
        return with_frames(chain, (*chain.frames[1:3], even[..., y : y + 64, x : x + 64]))

    box = Window(2, 2, 60, 60)
    small = resize(even[..., 62:126, 50:114], 15, 15, box=box).clamp(0, 1)
    true = source_agreement(shown(50, 62), 3)
    assert true == pytest.approx(psnr(small, source[..., 16:31, 13:28]), abs=1e-3)
    assert source_agreement(shown(52, 62), 3) < true - 5  # half a pixel to the side
    assert source_agreement(shown(50, 60), 3) < true - 5


def test_a_source_with_no_two_pixels_left_is_not_compared(photo):
    chain = bicubic_chain(photo, size=32, scale=4.0, steps=4)
    *_, third, last = measure(chain)
    assert chain.window_in(4, 0).width == 0.5
    assert math.isnan(third.source)
    assert math.isnan(last.source)
    assert math.isfinite(last.input)


def test_a_finer_source_is_made_small_instead(photo):
    """The paper's frame of a large picture: the source shows what the first steps should."""
    chain = bicubic_chain(photo, size=64, scale=2.0, steps=3, frame="whole picture square")
    assert chain.window_in(2, 0).width == 256
    true = [resize(photo, 64, 64, box=chain.window_in(k, 0)).clamp(0, 1) for k in (1, 2, 3, 4)]
    ideal = with_frames(chain, true)
    assert [source_agreement(ideal, k) > 90 for k in (2, 3, 4)] == [True] * 3
    assert source_agreement(chain, 2) == pytest.approx(psnr(chain.frames[2], true[1]), abs=1e-3)


def test_against_the_ground_truth_of_a_chain_of_true_frames(photo):
    source = resize(photo, 128, 128).clamp(0, 1)
    chain = bicubic_chain(source, size=64, scale=2.0, center=(0.43, 0.29))
    truth = [true_view(chain, k, photo) for k in (1, 2, 3)]
    for k, view in enumerate(truth, 1):
        assert torch.equal(
            view, resize(photo, 64, 64, box=times(4, chain.window_in(k, 0))).clamp(0, 1)
        )
    assert true_view(chain, 4, photo) is None  # 8x, of 4x
    assert reach(chain, photo) == 4
    ideal = with_frames(chain, (*truth, chain.frames[4]))
    figures = list(measure(ideal, photo))
    assert [f.psnr for f in figures[:3]] == [math.inf] * 3
    assert [f.ssim for f in figures[:3]] == pytest.approx([1, 1, 1], abs=1e-6)
    assert math.isnan(figures[3].psnr)
    assert math.isnan(figures[3].ssim)
    plain = list(measure(chain, photo))
    assert plain[1].psnr == psnr(chain.frames[2], truth[1]) < 40
    assert plain[2].ssim == ssim(chain.frames[3], truth[2]) < plain[1].ssim < 0.99


def times(factor, window):
    return Window(*(factor * value for value in window))


@pytest.mark.parametrize(
    ("height", "width"),
    [(512, 384), (511, 384), (513, 385), (514, 383), (128, 96), (129, 97), (1024, 768)],
)
def test_a_ground_truth_of_the_sources_shape_is_taken(photo, height, width):
    source = resize(photo, 128, 96).clamp(0, 1)
    chain = bicubic_chain(source, size=64, scale=2.0)
    truth = resize(photo, height, width).clamp(0, 1)
    figures = list(measure(chain, truth))
    assert figures[0].psnr > 30  # its window was found
    held = [not math.isnan(f.psnr) for f in figures]
    assert held == [height >= 128, height >= 256, height >= 500, height >= 1000]


@pytest.mark.parametrize(
    ("height", "width"), [(512, 400), (500, 384), (384, 512), (127, 96), (64, 48), (512, 512)]
)
def test_another_ground_truth_is_refused(photo, height, width):
    chain = bicubic_chain(resize(photo, 128, 96).clamp(0, 1), size=64)
    message = rf"is {width} x {height} pixels and the chain's source 96 x 128: .* in the same shape"
    with pytest.raises(ValueError, match=message):
        next(measure(chain, resize(photo, height, width)))


def test_small_frames_have_what_can_be_measured(photo):
    source = resize(photo, 10, 8).clamp(0, 1)
    chain = bicubic_chain(source, size=16, scale=2.0, steps=2)
    assert chain.frames[1].shape[-2:] == (10, 8)
    figures = list(measure(chain, photo[..., :500, :400]))
    assert all(math.isnan(f.ssim) and math.isfinite(f.psnr) for f in figures)
    tiny = bicubic_chain(photo[..., :2, :2], size=16, scale=2.0, steps=1)
    assert math.isnan(next(measure(tiny)).sharpness)


def test_the_chain_and_the_ground_truth_stay_as_they_are(photo, make_chain):
    chain = make_chain(height=128, width=128)
    before = [x.clone() for x in (*chain.frames, photo)]
    list(measure(chain, photo))
    assert all(map(torch.equal, (*chain.frames, photo), before))


def test_the_table_without_a_ground_truth(photo):
    chain = bicubic_chain(photo, size=64, scale=4.0, steps=2)
    figures = list(measure(chain))
    made_up = [
        replace(figures[0], sharpness=3174.4),
        replace(figures[1], input=36.94, source=math.inf, sharpness=710.3, drift=0.144),
        replace(figures[2], input=9.0, source=math.nan, sharpness=0.4, drift=12.0),
    ]
    assert report(chain, made_up).split("\n") == [
        "| zoom | input dB | source dB | sharpness | drift |",
        "| ---: | -------: | --------: | --------: | ----: |",
        "|   1x |        - |         - |      3174 |     - |",
        "|   4x |     36.9 |       >99 |       710 |  0.14 |",
        "|  16x |      9.0 |         - |         0 | 12.00 |",
        "",
        "No ground truth is connected: PSNR and SSIM are not measured.",
    ]


def test_the_table_with_a_ground_truth(photo):
    chain = bicubic_chain(resize(photo, 128, 128).clamp(0, 1), size=64, scale=4.0, steps=2)
    figures = list(measure(chain, photo))
    made_up = [
        replace(figures[0], psnr=math.inf, ssim=1.0, sharpness=3174),
        replace(figures[1], input=36.94, source=36.9, psnr=24.728, ssim=0.7414, sharpness=710, drift=0),
        replace(figures[2], input=9.0, source=8, sharpness=2, drift=0),
    ]  # fmt: skip
    assert report(chain, made_up, photo).split("\n") == [
        "| zoom | input dB | source dB | PSNR dB |  SSIM | sharpness | drift |",
        "| ---: | -------: | --------: | ------: | ----: | --------: | ----: |",
        "|   1x |        - |         - |     >99 | 1.000 |      3174 |     - |",
        "|   4x |     36.9 |      36.9 |   24.73 | 0.741 |       710 |  0.00 |",
        "|  16x |      9.0 |       8.0 |       - |     - |         2 |  0.00 |",
        "",
        "The ground truth reaches 4x: beyond it PSNR and SSIM cannot be measured.",
    ]
    whole = report(chain, made_up[:2], photo)
    assert whole.endswith("\nThe ground truth reaches 4x.")
