"""A chain in figures: each step beside its input, the source and the ground truth."""

import math
import re
from dataclasses import replace

import pytest
import torch

from coz.fidelity.back_projection import measure_agreement
from coz.fidelity.metrics import measure_color_drift, measure_psnr, measure_sharpness, measure_ssim
from coz.fidelity.pending_figure import read_figures
from coz.fidelity.report import (
    Figures,
    compute_max_comparable_magnification,
    cut_ground_truth,
    describe_chain,
    describe_deepest_frame,
    measure_chain,
    start_measuring_source_agreement,
    write_report,
)
from coz.geometry import Target, Window, plan_zoom
from coz.resample import crop, resize
from coz.zoom import zoom


def source_agreement(chain, layer):
    return read_figures(start_measuring_source_agreement(chain, layer))[0]


def bicubic_chain(source, size=32, scale=2.0, steps=3, center=(0.5, 0.3), frame="native pixels"):
    """Of plain enlargements."""
    plan = plan_zoom(*source.shape[-2:], steps, scale, Target(*center), frame, size)
    return zoom(source, plan, lambda view, _: view.zoomed)


def with_frames(chain, frames):
    return replace(chain, frames=(chain.frames[0], *frames))


def test_each_figure_is_its_functions(make_chain):
    chain = make_chain()
    first, *steps = measure_chain(chain)
    assert math.isnan(first.input_agreement)
    assert math.isnan(first.source_agreement)
    assert math.isnan(first.drift)
    assert first.sharpness == measure_sharpness(chain.frames[1])
    assert [f.layer for f in steps] == [2, 3, 4]
    for f in steps:
        frame = chain.frames[f.layer]
        lq = crop(chain.frames[f.layer - 1], chain.windows[f.layer - 1])
        assert f.input_agreement == measure_agreement(frame, lq)
        assert f.drift == measure_color_drift(frame, lq)
        assert f.sharpness == measure_sharpness(frame)
        assert math.isnan(f.psnr)
        assert math.isnan(f.ssim)


def test_the_first_step_repeats_the_source_as_it_repeats_its_input(make_chain):
    chain = make_chain()  # native pixels: x_0 is the source's own
    _, step, *_ = measure_chain(chain)
    assert step.source_agreement == pytest.approx(step.input_agreement, abs=1e-4)


def test_only_whole_pixels_of_the_source_count(photo):
    """A view that begins in the middle of one, where each of them is an even square."""
    source = photo[..., 60:124, 180:244]
    chain = bicubic_chain(source, size=64, scale=2.0, steps=2)
    chain = replace(chain, windows=(chain.windows[0], Window(10, 12, 32, 32), Window(5, 7, 32, 32)))
    assert chain.find_window_in(3, 0) == (12.5, 15.5, 16, 16)
    even = source.repeat_interleave(4, -2).repeat_interleave(4, -1)

    def shown(x, y):
        return with_frames(chain, (*chain.frames[1:3], even[..., y : y + 64, x : x + 64]))

    small = resize(even[..., 62:126, 50:114], 15, 15, box=Window(2, 2, 60, 60)).clamp(0, 1)
    true = source_agreement(shown(50, 62), 3)
    assert true == pytest.approx(measure_psnr(small, source[..., 16:31, 13:28]), abs=1e-3)
    assert source_agreement(shown(52, 62), 3) < true - 5  # half a pixel to the side
    assert source_agreement(shown(50, 60), 3) < true - 5


def test_a_view_of_fewer_than_8_x_8_pixels_is_not_compared_with_the_source(photo):
    chain = bicubic_chain(photo, size=128, scale=4.0, steps=4)
    assert [chain.find_window_in(layer, 0).width for layer in (2, 3, 4, 5)] == [32, 8, 2, 0.5]
    first, *steps = measure_chain(chain)
    assert [math.isfinite(f.source_agreement) for f in steps] == [True, True, False, False]
    assert all(math.isfinite(f.input_agreement) for f in steps)
    # Whole pixels in it: seven by seven, where it begins in the middle of one.
    moved = replace(chain, windows=(Window(190.5, 100.5, 128, 128), *chain.windows[1:]))
    assert math.isfinite(source_agreement(moved, 3))
    assert write_report(chain, [first, *steps]).count("too few real pixels to compare |") == 2


def test_a_finer_source_is_made_small_instead(photo):
    """The paper's frame of a large picture: the source shows what the first steps should."""
    chain = bicubic_chain(photo, size=64, scale=2.0, steps=3, frame="whole picture square")
    assert chain.find_window_in(2, 0).width == 256
    true = [resize(photo, 64, 64, box=chain.find_window_in(k, 0)).clamp(0, 1) for k in (1, 2, 3, 4)]
    ideal = with_frames(chain, true)
    assert [source_agreement(ideal, k) > 90 for k in (2, 3, 4)] == [True] * 3
    assert source_agreement(chain, 2) == pytest.approx(
        measure_psnr(chain.frames[2], true[1]), abs=1e-3
    )


def test_against_the_ground_truth_of_a_chain_of_true_frames(photo):
    source = resize(photo, 128, 128).clamp(0, 1)
    chain = bicubic_chain(source, size=64, scale=2.0, center=(0.43, 0.29))
    truth = [cut_ground_truth(chain, k, photo) for k in (1, 2, 3)]
    for k, view in enumerate(truth, 1):
        window = Window(*(4 * value for value in chain.find_window_in(k, 0)))
        assert torch.equal(view, resize(photo, 64, 64, box=window).clamp(0, 1))
    assert cut_ground_truth(chain, 4, photo) is None  # 8x, of 4x
    assert compute_max_comparable_magnification(chain, photo) == 4
    ideal = with_frames(chain, (*truth, chain.frames[4]))
    figures = list(measure_chain(ideal, photo))
    assert [f.psnr for f in figures[:3]] == [math.inf] * 3
    assert [f.ssim for f in figures[:3]] == pytest.approx([1, 1, 1], abs=1e-6)
    assert math.isnan(figures[3].psnr)
    assert math.isnan(figures[3].ssim)
    plain = list(measure_chain(chain, photo))
    assert plain[1].psnr == measure_psnr(chain.frames[2], truth[1]) < 40
    assert plain[2].ssim == measure_ssim(chain.frames[3], truth[2]) < plain[1].ssim < 0.99


@pytest.mark.parametrize(
    ("height", "width"),
    [(512, 384), (511, 384), (513, 385), (514, 383), (128, 96), (129, 97), (1024, 768)],
)
def test_a_ground_truth_of_the_sources_shape_is_taken(photo, height, width):
    chain = bicubic_chain(resize(photo, 128, 96).clamp(0, 1), size=64, scale=2.0)
    truth = resize(photo, height, width).clamp(0, 1)
    figures = list(measure_chain(chain, truth))
    assert figures[0].psnr > 30  # its window was found
    held = [not math.isnan(f.psnr) for f in figures]
    assert held == [height >= 128, height >= 256, height >= 500, height >= 1000]


@pytest.mark.parametrize(
    ("height", "width"), [(512, 400), (500, 384), (384, 512), (127, 96), (64, 48), (512, 512)]
)
def test_another_ground_truth_is_refused(photo, height, width):
    chain = bicubic_chain(resize(photo, 128, 96).clamp(0, 1), size=64)
    message = rf"is {width} x {height} pixels and the chain's source 96 x 128: .* with the same proportions.*Connect the image"
    with pytest.raises(ValueError, match=message):
        next(measure_chain(chain, resize(photo, height, width)))


def test_small_frames_have_what_can_be_measured(photo):
    chain = bicubic_chain(resize(photo, 10, 8).clamp(0, 1), size=16, scale=2.0, steps=2)
    assert chain.frames[1].shape[-2:] == (10, 8)
    figures = list(measure_chain(chain, photo[..., :500, :400]))
    assert all(math.isnan(f.ssim) and math.isfinite(f.psnr) for f in figures)
    tiny = bicubic_chain(photo[..., :2, :2], size=16, scale=2.0, steps=1)
    assert math.isnan(next(measure_chain(tiny)).sharpness)


def test_the_chain_and_the_ground_truth_stay_as_they_are(photo, make_chain):
    chain = make_chain(height=128, width=128)
    before = [x.clone() for x in (*chain.frames, photo)]
    list(measure_chain(chain, photo))
    assert all(map(torch.equal, (*chain.frames, photo), before))


REAL = "real pixels: how many pixels of the photograph the frame shows. Finer detail is invented."
INPUT = (
    "its input: the step's result, downscaled, compared with what the step enlarged. "
    '"repeats it" (40 dB and more) is good, below 30 dB shapes or '
    "colors have changed. From the second step on, the input itself is partly invented, so repeating it "
    "does not mean being true."
)
PHOTOGRAPH = (
    "the photograph: the same comparison with the photograph's own pixels, where at least 8 x 8 of "
    "them are in view. Finer detail is not judged."
)
TRUTH = (
    "PSNR and SSIM: the frame compared with the ground truth. Higher is closer; equal images "
    "have a PSNR over 99 dB and an SSIM of 1."
)
SHARPNESS = (
    "sharpness: the amount of fine structure, whether real, invented or noise. Near 0 is blur. "
    "Compare it along the chain."
)
DRIFT = (
    "color drift: how far the step moved the mean color, in levels of 255. Up to 2 it is invisible, "
    "above 6 visible."
)


def test_the_table_without_a_ground_truth(photo):
    chain = bicubic_chain(photo, size=64, scale=4.0, steps=2)
    figures = list(measure_chain(chain))
    made_up = [
        replace(figures[0], sharpness=3174.4),
        replace(
            figures[1],
            input_agreement=36.94,
            source_agreement=math.inf,
            sharpness=710.3,
            drift=0.144,
        ),
        replace(
            figures[2], input_agreement=9.0, source_agreement=math.nan, sharpness=0.4, drift=12.0
        ),
    ]
    assert write_report(chain, made_up).split("\n") == [
        "The deepest frame (16x) shows 4 x 4 real pixels: nearly everything in it is invented. The "
        "weakest step, to 16x, contradicts its input (9.0 dB); colors change visibly (at most 12.0 "
        "of 255 levels in a step). The deepest frame is blurred: sharpness falls from 3174 to 0.",
        "",
        "| zoom |         real pixels |                its input |                 the photograph | sharpness | color drift |",
        "| ---: | ------------------: | -----------------------: | -----------------------------: | --------: | ----------: |",
        "|   1x |            all real |                        - |                              - |      3174 |           - |",
        "|   4x | 16 x 16 real pixels | is close to it (36.9 dB) |        repeats it (over 99 dB) |       710 |        0.14 |",
        "|  16x |   4 x 4 real pixels |  contradicts it (9.0 dB) | too few real pixels to compare |         0 |       12.00 |",
        *["", REAL, "", INPUT, "", PHOTOGRAPH, "", SHARPNESS, "", DRIFT, ""],
        "No ground truth is connected: PSNR and SSIM are not measured.",
    ]


def test_the_table_with_a_ground_truth(photo):
    chain = bicubic_chain(resize(photo, 128, 128).clamp(0, 1), size=64, scale=4.0, steps=2)
    figures = list(measure_chain(chain, photo))
    made_up = [
        replace(figures[0], psnr=math.inf, ssim=1.0, sharpness=3174),
        replace(figures[1], input_agreement=46.94, source_agreement=24.9, psnr=24.728, ssim=0.7414, sharpness=710, drift=0),
        replace(figures[2], input_agreement=49.0, source_agreement=math.nan, sharpness=700, drift=2.5),
    ]  # fmt: skip
    assert write_report(chain, made_up, photo).split("\n") == [
        "The deepest frame (16x) shows 4 x 4 real pixels: nearly everything in it is invented. Every "
        "step repeats its input; colors move a little (at most 2.5 of 255 levels in a step). At 4x the chain "
        "departs from the photograph (24.9 dB).",
        "",
        "| zoom |         real pixels |            its input |                 the photograph | PSNR dB |  SSIM | sharpness | color drift |",
        "| ---: | ------------------: | -------------------: | -----------------------------: | ------: | ----: | --------: | ----------: |",
        "|   1x |            all real |                    - |                              - |     >99 | 1.000 |      3174 |           - |",
        "|   4x | 16 x 16 real pixels | repeats it (46.9 dB) |      departs from it (24.9 dB) |   24.73 | 0.741 |       710 |        0.00 |",
        "|  16x |   4 x 4 real pixels | repeats it (49.0 dB) | too few real pixels to compare |       - |     - |       700 |        2.50 |",
        *["", REAL, "", INPUT, "", PHOTOGRAPH, "", TRUTH, "", SHARPNESS, "", DRIFT, ""],
        "The ground truth is fine enough for frames up to 4x: beyond that PSNR and SSIM cannot be measured.",
    ]
    whole = write_report(chain, made_up[:2], photo)
    assert whole.endswith("\nThe ground truth is fine enough for frames up to 4x.")


@pytest.mark.parametrize(
    ("size", "scale", "layer", "words"),
    [
        (512, 4, 1, "(1x) is all real: nothing in it had to be invented."),
        (512, 4, 2, "(4x) shows 128 x 128 real pixels: its shapes are real, its fine detail is invented."),
        (512, 8, 2, "(8x) shows 64 x 64 real pixels: its shapes are real, its fine detail is invented."),
        (512, 4, 3, "(16x) shows 32 x 32 real pixels: only its coarsest shapes are real, all detail is invented."),
        (512, 4, 4, "(64x) shows 8 x 8 real pixels: all but a blur of colors is invented."),
        (512, 4, 5, "(256x) shows 2 x 2 real pixels: nearly everything in it is invented."),
        (512, 4, 6, "(1024x) shows less than one real pixel: everything in it is invented."),
        (16, 4, 2, "(4x) shows 4 x 4 real pixels: nearly everything in it is invented."),
    ],
)  # fmt: skip
def test_a_sentence_about_the_deepest_frame(make_chain, size, scale, layer, words):
    chain = make_chain(1024, 1024, size=size, scale=scale, steps=5, center=(0.5, 0.5))
    assert describe_deepest_frame(chain, layer) == f"The deepest frame {words}"


def test_the_sentence_of_a_chain(make_chain):
    chain = make_chain(1024, 1024, size=512, steps=2)
    nothing = dict.fromkeys(
        ("input_agreement", "source_agreement", "psnr", "ssim", "drift"), math.nan
    )
    first = Figures(layer=1, sharpness=500, **nothing)
    steps = [
        replace(first, layer=k, input_agreement=46, source_agreement=46, drift=0.4) for k in (2, 3)
    ]
    deepest = "The deepest frame (16x) shows 32 x 32 real pixels: only its coarsest shapes are real, all detail is invented."
    kept = "colors stay true (at most 0.4 of 255 levels in a step)."
    good = f"{deepest} Every step repeats its input; {kept}"
    assert describe_chain(chain, [first, *steps]) == good
    close = replace(steps[0], input_agreement=39.9, source_agreement=29.9)
    assert describe_chain(chain, [first, close, steps[1]]) == (
        f"{deepest} The weakest step, to 4x, is close to its input (39.9 dB); {kept}"
    )  # the deepest that can be compared repeats the photograph
    blurred = replace(steps[1], sharpness=9.9, source_agreement=12)
    assert describe_chain(chain, [first, steps[0], blurred]) == (
        f"{good} At 16x the chain contradicts the photograph (12.0 dB). The deepest frame is blurred: "
        "sharpness falls from 500 to 10."
    )
    # Nothing known of the steps, no steps, no sharpness.
    none = "There is no step to judge."
    assert describe_chain(chain, [first, replace(first, layer=3)]) == f"{deepest} {none}"
    alone = "The deepest frame (1x) is all real: nothing in it had to be invented."
    for sharpness_of_x_0 in (500, math.nan):
        figures = [replace(first, sharpness=sharpness_of_x_0)]
        assert describe_chain(chain, figures) == f"{alone} {none}"


def test_sixteen_steps_far_below_a_pixel(make_chain):
    chain = make_chain(64, 64, size=16, steps=16, scale=8.0)
    text = write_report(chain, list(measure_chain(chain)))
    assert "shows less than one real pixel: everything in it is invented." in text
    rows = [re.split(r" *\| *", line) for line in text.split("\n") if line.startswith("|")][2:]
    real = ["all real", "2 x 2 real pixels", *["less than one real pixel"] * 15]
    assert [row[2] for row in rows] == real
    assert [row[4] for row in rows] == ["-", *["too few real pixels to compare"] * 16]


def test_thin_and_tiny_pictures_are_reported(photo):
    for height, width in ((1, 1), (1, 512), (512, 3)):
        chain = bicubic_chain(photo[..., :height, :width], size=64, steps=1)
        text = write_report(chain, list(measure_chain(chain)))
        assert text.count("too few real pixels to compare") == 1
        assert "nan" not in text
