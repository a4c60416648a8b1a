from math import inf, log10

import piq
import pytest
import torch

from coz.fidelity.back_projection import measure_agreement
from coz.resample import resize
from tests.support.images import add_noise, blur
from tools.evaluate.metrics import ALL_METRICS, METRICS, WEIGHTLESS_MEASURES, Meter
from tools.evaluate.seam import ROUNDING, measure_seam

from .jobs import measured

FIDELITY = [name for name in WEIGHTLESS_MEASURES if METRICS[name].kind == "fidelity"]
BEST = {
    "psnr": inf, "ssim": 1.0, "ms_ssim": 1.0, "gmsd": 0.0, "fsim": 1.0, "consistency": inf,
    "source_psnr": inf, "color_drift": 0.0,
}  # fmt: skip


def test_each_metric_is_its_library_called_directly(photo):
    sr = add_noise(photo, 0.1)
    lq, source = resize(photo, 48, 48).clamp(0, 1), resize(photo, 12, 12).clamp(0, 1)
    scores = measured(Meter(ALL_METRICS), sr, photo, lq, source)
    direct = {
        "psnr": piq.psnr(sr, photo),
        "ssim": piq.ssim(sr, photo, downsample=False),
        "ms_ssim": piq.multi_scale_ssim(sr, photo),
        "gmsd": piq.gmsd(sr, photo),
        "fsim": piq.fsim(sr, photo, chromatic=True),
        "consistency": measure_agreement(sr, lq),
        "source_psnr": measure_agreement(sr, source),
    }
    # 1e-4: float32's order of sums, and the 1e-8 that piq adds inside PSNR's logarithm.
    for name, value in direct.items():
        assert scores[name] == pytest.approx(float(value), rel=1e-4), name


def test_flat_pictures_have_closed_forms():
    a, b = 0.2, 0.7
    sr, truth = (torch.full((1, 3, 192, 192), grey) for grey in (a, b))
    lq = torch.full((1, 3, 48, 48), 0.3)
    scores = measured(Meter(ALL_METRICS), sr, truth, lq)
    luminance = (2 * a * b + 0.01**2) / (a * a + b * b + 0.01**2)
    assert scores["psnr"] == pytest.approx(-20 * log10(0.5), rel=1e-5)
    assert scores["ssim"] == pytest.approx(luminance, rel=1e-4)
    # Wang et al. 2003: luminance counts at the coarsest of five sizes only, with this weight.
    assert scores["ms_ssim"] == pytest.approx(luminance**0.1333, rel=1e-3)
    # Its gradients (Prewitt) are of zero inside; the outermost of the 96 x 96 meets the dark.
    places = {(94 * 94, 0.0), (4 * 94, 1.0), (4, 8**0.5 / 3)}
    alike = [
        (count, (2 * a * b * g * g + 170 / 255**2) / ((a * a + b * b) * g * g + 170 / 255**2))
        for count, g in places
    ]
    mean = sum(count * x for count, x in alike) / 96**2
    deviation = (sum(count * (x - mean) ** 2 for count, x in alike) / 96**2) ** 0.5
    assert scores["gmsd"] == pytest.approx(deviation, rel=1e-3)
    assert scores["consistency"] == pytest.approx(20, rel=1e-4)
    assert scores["color_drift"] == pytest.approx(25.5, rel=1e-4)
    assert scores["sharpness"] == pytest.approx(0, abs=1e-6)
    assert scores["seam"] == 1


@pytest.mark.parametrize("kind", ["photo", "flat", "noise"])
def test_equal_pictures_have_the_ideal_values(photo, kind):
    image = {
        "photo": photo,
        "flat": torch.full((1, 3, 192, 192), 0.25),
        "noise": add_noise(torch.full((1, 3, 192, 192), 0.5), 0.3),
    }[kind]
    scores = measured(Meter(ALL_METRICS), image, image, lq=image, source=image)
    names = [name for name in WEIGHTLESS_MEASURES if name in BEST]
    assert {name: scores[name] for name in names} == {
        name: pytest.approx(BEST[name], abs=1e-6) for name in names
    }


@pytest.mark.parametrize("name", FIDELITY)
@pytest.mark.parametrize("change", [blur, add_noise])
def test_more_blur_or_noise_is_worse(photo, name, change):
    amounts = (0.5, 1, 2, 4) if change is blur else (0.01, 0.03, 0.1, 0.3)
    meter = Meter([name])
    values = [measured(meter, change(photo, amount), photo)[name] for amount in amounts]
    assert values == sorted(values, reverse=METRICS[name].better != "lower")
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("transposed", [False, True])
def test_seam_is_what_was_drawn(transposed):
    def drawn(slope, height, grid=8, shift=0):
        x = torch.arange(64.0)
        image = (slope * x + height * ((x + shift) // grid)).expand(1, 3, 64, 64)
        return image.mT if transposed else image

    slope, height = 0.002, 0.05
    expected = (slope + height + ROUNDING) / (slope + ROUNDING)
    assert measure_seam(drawn(slope, height)) == pytest.approx(expected, rel=1e-4)
    assert measure_seam(drawn(0, height)) == pytest.approx((height + ROUNDING) / ROUNDING, rel=1e-4)
    assert measure_seam(drawn(slope, 0)) == pytest.approx(1, rel=1e-4)
    # Of tiles of 16 pixels: every second line of the grid is one.
    tiles = (slope + height * 3 / 7 + ROUNDING) / (slope + ROUNDING)
    assert measure_seam(drawn(slope, height, grid=16)) == pytest.approx(tiles, rel=1e-4)
    # Lines of another grid are the picture's own; the other axis, which has none, is the worse.
    assert measure_seam(drawn(slope, height, shift=4)) == 1


def test_seam_of_a_photograph_is_about_one_and_grows_with_the_blocks(photo):
    values = [measure_seam(photo)]
    blocks = torch.arange(192) // 8 % 2
    for height in (0.02, 0.05, 0.1):
        values.append(measure_seam((photo * 0.8 + height * (blocks[:, None] ^ blocks)).clamp(0, 1)))
    assert 0.9 < values[0] < 1.1
    assert values == sorted(values)
    assert values[-1] > 2


def test_lines_that_are_smoother_than_the_rest_are_no_seam():
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for axis in (image, image.mT):
        axis[..., 8::8] = axis[..., 7:-1:8]
    assert measure_seam(image) == 1


def test_a_small_frame_is_told_what_it_lacks():
    frame, dot = torch.rand(1, 3, 128, 128), torch.rand(1, 3, 2, 2)
    meter = Meter(ALL_METRICS)
    scores, reasons = meter.measure(frame, lq=dot, source=dot, ground_truth=frame)
    assert reasons == {
        "ms_ssim": "MS-SSIM needs 161 px a side, but the frame has 128",
        "source_psnr": "Source PSNR (dB) needs 8 real pixels a side, but the frame shows 2",
    }
    assert scores.keys() == WEIGHTLESS_MEASURES.keys() - reasons.keys()
    eight = resize(frame, 8, 8).clamp(0, 1)
    scores, _ = meter.measure(frame, lq=eight, source=eight, ground_truth=frame)
    assert scores["source_psnr"] == scores["consistency"]
    tiny = frame[..., :2, :2].contiguous()
    scores, reasons = meter.measure(tiny, lq=dot, source=dot, ground_truth=tiny)
    assert reasons.keys() == {"ssim", "ms_ssim", "fsim", "source_psnr", "sharpness", "seam"}
    assert scores.keys() == WEIGHTLESS_MEASURES.keys() - reasons.keys()


def test_each_metric_works_at_its_least_size():
    for name in WEIGHTLESS_MEASURES:
        least = METRICS[name].min_side
        frame = add_noise(torch.full((1, 3, least, least), 0.5), 0.2)
        assert name in measured(Meter([name]), frame, frame, lq=frame, source=frame)


def test_without_a_ground_truth_fidelity_is_told_not_measured(photo):
    meter = Meter(["psnr", "seam"])
    scores, reasons = meter.measure(photo, lq=photo, source=photo, ground_truth=None)
    assert scores.keys() == {"seam"}
    assert reasons == {"psnr": "PSNR (dB) needs a ground truth, but this frame has none"}


def test_inputs_stay_and_a_second_measure_is_equal(photo):
    sr = add_noise(photo, 0.1)
    images = {"lq": photo[..., :48, :48], "source": photo[..., :2, :2]}
    before = [image.clone() for image in (sr, *images.values())]
    meter = Meter(ALL_METRICS)
    first = meter.measure(sr, **images, ground_truth=photo)
    assert first == meter.measure(sr, **images, ground_truth=photo)
    assert first == Meter(ALL_METRICS).measure(sr, **images, ground_truth=photo)
    for old, new in zip(before, (sr, *images.values()), strict=True):
        assert torch.equal(old, new)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sr", torch.rand(3, 64, 64), r"the frame must be \(1, 3, H, W\) float32, got \(3, 64, 64\)"),
        ("sr", torch.rand(2, 3, 64, 64), r"got \(2, 3, 64, 64\)"),
        ("lq", torch.rand(1, 1, 16, 16), r"the window must be .* got \(1, 1, 16, 16\)"),
        ("source", torch.rand(1, 3, 4, 4).double(), "the source .* torch.float64"),
        ("sr", torch.full((1, 3, 64, 64), 1.5), r"the frame must lie in \[0, 1\], got 1.5 to 1.5"),
        ("lq", torch.full((1, 3, 16, 16), -0.1), "the window must lie in .* got -0.1 to -0.1"),
        ("sr", torch.full((1, 3, 64, 64), torch.nan), "the frame must lie in .* got nan to nan"),
        ("ground_truth", torch.rand(1, 3, 64, 32), "has 32 x 64 pixels and the frame 64 x 64"),
        ("lq", torch.rand(1, 3, 65, 65), "the source is 65 x 65 pixels and the image 64 x 64"),
    ],
)  # fmt: skip
def test_wrong_pictures_are_told(name, value, message):
    frame = torch.rand(1, 3, 64, 64)
    images = {"sr": frame, "lq": frame, "source": frame, "ground_truth": frame}
    images[name] = value
    with pytest.raises(ValueError, match=message):
        Meter(list(WEIGHTLESS_MEASURES)).measure(images.pop("sr"), **images)


def test_an_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(ValueError, match=r"no metric lpisp, vmaf; there are: psnr, ssim, .*seam"):
        Meter(["psnr", "lpisp", "vmaf"])
