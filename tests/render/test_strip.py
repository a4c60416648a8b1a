import re
from dataclasses import replace

import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from coz.chain.real_pixels import COLOR_STOPS
from coz.chain.zoom_chain import ZoomChain
from coz.geometry import Target, Window
from coz.render.strip import draw_strip, format_factor, write_factor_label
from coz.resample import crop, resize


@pytest.fixture(scope="module")
def chain(make_chain):
    """Noise at 256 pixels, the smallest frames that are shown as they are."""
    return replace(make_chain(height=300, width=400, size=256, steps=3), prompts=("", "", ""))


def rounded(frame):
    return (frame[0] * 255).round() / 255


def flat_chain(height, width, steps, value=0.5, window=None):
    window = window or Window(1, 1, width // 4, height // 4)
    windows = (Window(0, 0, width, height), *[window] * steps)
    frames = (torch.tensor(value).expand(1, 3, height, width),) * (steps + 2)  # without memory
    return ZoomChain(4.0, frames, windows, ("",) * steps, (0,) * steps, Target(0.5, 0.5))


@pytest.mark.parametrize(
    ("height", "width", "steps", "layout", "labels", "size"),
    [
        (512, 5, 4, "steps", True, "788 x 106,508"),
        (512, 5, 3, "steps", True, "788 x 79,880"),
        (5, 512, 16, "row", False, "8,704 x 5"),
        (512, 5, 16, "row", True, "4,484 x 26,624"),
        (4096, 4096, 8, "row", False, "37,376 x 4,096"),
    ],
)
def test_a_strip_has_a_largest_size(height, width, steps, layout, labels, size):
    chain = flat_chain(height, width, steps, window=Window(0, 0, width, height))
    if size == "8,704 x 5":
        assert draw_strip(chain, layout, labels).shape[-2:] == (5, 8704)
        return
    message = f"the strip would have {size} pixels: {steps + 1} frames of"
    with pytest.raises(ValueError, match=message):
        draw_strip(chain, layout, labels)


def test_a_row_shows_every_scale_side_by_side(chain):
    before = [frame.clone() for frame in chain.frames]
    picture = draw_strip(chain)
    assert picture.shape == (1, 3, 256, 4 * 256 + 3 * 4)
    assert picture.dtype == torch.float32
    assert (picture[..., 256:260] == 1).all()
    # The deepest frame has no next window: above its label it is the frame, rounded to 8 bits.
    torch.testing.assert_close(picture[0, :, :180, 3 * 260 :], rounded(chain.frames[4])[:, :180])
    assert all(torch.equal(a, b) for a, b in zip(before, chain.frames, strict=True))


def test_the_next_window_is_framed(make_chain):
    chain = make_chain(height=256, width=256, size=256, steps=1, center=(0.5, 1.0))
    picture = draw_strip(chain)[0, :, :, :256]
    assert chain.windows[1] == (96, 192, 64, 64)
    # Its own pixels are as they were, except at the edge of the picture.
    inside = picture[:, 192:255, 96:160]
    torch.testing.assert_close(inside, rounded(chain.frames[1])[:, 192:255, 96:160])
    for line in (picture[:, 191, 95:161], picture[:, 255, 95:161], picture[:, 191:, 95]):
        assert (line > 0.89).all()
    assert (picture[:, 191:, 160] > 0.89).all()


@pytest.mark.parametrize(
    ("steps", "shape", "columns"),
    [(1, (64, 64), 2), (3, (64, 64), 2), (4, (64, 64), 3), (16, (64, 64), 5), (3, (64, 256), 1)],
)
def test_a_grid_is_near_square(steps, shape, columns):
    height, width = shape
    picture = draw_strip(flat_chain(height, width, steps), "grid", labels=False)
    rows = -(-(steps + 1) // columns)
    assert picture.shape == (1, 3, rows * (height + 1) - 1, columns * (width + 1) - 1)
    if (steps + 1) % columns:  # empty places are white
        assert (picture[..., -height:, -width:] == 1).all()


def test_each_step_is_shown_before_and_after(chain):
    picture = draw_strip(chain, "steps", labels=False)[0]
    assert picture.shape == (3, 3 * 256 + 2 * 4, 3 * 256 + 2 * 4)
    for step in range(3):
        row = picture[:, step * 260 : step * 260 + 256]
        before, window = chain.frames[step + 1], chain.windows[step + 1]
        enlarged = resize(crop(before, window), 256, 256).clamp(0, 1)
        for k, frame in enumerate((before, enlarged, chain.frames[step + 2])):
            torch.testing.assert_close(row[:, :, k * 260 : k * 260 + 256], rounded(frame))


def test_without_labels_nothing_is_drawn(chain):
    picture = draw_strip(replace(chain, prompts=("a", "b", "c")), labels=False)[0]
    assert picture.shape == (3, 256, 4 * 260 - 4)
    for k in range(4):
        shown = picture[:, :, k * 260 : k * 260 + 256]
        torch.testing.assert_close(shown, rounded(chain.frames[k + 1]))


@pytest.mark.parametrize("layout", ["row", "grid", "steps"])
def test_prompts_are_written_below_their_frames(chain, layout):
    plain = draw_strip(chain, layout)
    prompted = draw_strip(replace(chain, prompts=("", "hair", "")), layout)
    band = prompted.shape[-2] - plain.shape[-2]
    assert 256 / 22 < band < 2 * 256 / 22 + 256 / 32
    if layout == "row":
        assert torch.equal(prompted[..., :256, :], plain)
        written = (prompted[..., 256:, :] < 0.5).any(1).any(1)[0]
        assert written[2 * 260 : 3 * 260].any()
        assert not written[: 2 * 260].any()
        assert not written[3 * 260 :].any()


@pytest.mark.parametrize(
    "prompt",
    ["word " * 200, "x" * 2000, "这是一张特写照片" * 100, "half \ud800 a letter", "a\nb\r\tc", " "],
    ids=["long", "one word", "Chinese", "surrogate", "line breaks", "blank"],
)
@pytest.mark.parametrize("layout", ["row", "steps"])
def test_any_prompt_fits_below_its_frame(chain, prompt, layout):
    picture = draw_strip(replace(chain, prompts=(prompt, prompt, prompt)), layout)
    plain = draw_strip(chain, layout)
    assert picture.shape[-1] == plain.shape[-1]
    rows = 3 if layout == "steps" else 1
    assert picture.shape[-2] <= plain.shape[-2] + rows * 256 / 4
    # Nothing runs over the edge, or into the next frame's text.
    band = picture[..., 256 : 256 + (picture.shape[-2] - plain.shape[-2]) // rows, :]
    assert (band[..., -3:] == 1).all()
    if layout == "row":
        assert (band[..., 256:262] == 1).all()


def test_long_prompts_end_in_an_ellipsis():
    # What is written can hardly be read back from pixels.
    from coz.render.strip import ELLIPSIS, _wrap

    font = ImageFont.load_default(20)
    assert _wrap("one two three", font, 1000) == ["one two three"]
    assert _wrap("one two three", font, font.getlength("one two")) == ["one two", "three"]
    lines = _wrap("word " * 50, font, 200)
    assert len(lines) == 3
    assert lines[0] == "word word word word"
    assert lines[2].endswith(ELLIPSIS)
    assert all(font.getlength(line) <= 200 for line in lines)


@pytest.mark.parametrize(("side", "times"), [(16, 16), (17, 16), (64, 4), (255, 2), (256, 1)])
def test_small_frames_are_enlarged_a_whole_number_of_times(side, times, make_chain):
    chain = replace(make_chain(side, side, side, steps=1), prompts=("",))
    picture = draw_strip(chain)[0]
    size = side * times
    assert picture.shape[-2] == size
    last = (rounded(chain.frames[2]) * 255).byte().movedim(0, -1).numpy()
    shown = Image.fromarray(last).resize((size, size), Image.Resampling.NEAREST)
    expected = torch.frombuffer(bytearray(shown.tobytes()), dtype=torch.uint8).view(size, size, 3)
    top = size * 2 // 3  # above the label
    drawn = (picture[:, :top, -size:] * 255).round().byte()
    assert torch.equal(drawn, expected.movedim(-1, 0)[:, :top])


@pytest.mark.parametrize("steps", [1, 16])
@pytest.mark.parametrize("layout", ["row", "grid", "steps"])
@pytest.mark.parametrize("shape", [(16, 16), (16, 100), (280, 40)], ids=str)
def test_any_frame_and_number_of_steps(layout, steps, shape):
    picture = draw_strip(flat_chain(*shape, steps), layout)
    assert picture.min() < 0.5 < picture.max()  # the labels are there


@pytest.mark.parametrize("layout", ["row", "grid", "steps"])
def test_the_smallest_frames_without_labels(layout, make_chain):
    chain = make_chain(height=4, width=4, size=1, steps=2)
    picture = draw_strip(chain, layout, labels=False)
    assert torch.equal(picture[0, :, :1, :1], rounded(chain.frames[1]))


def test_large_frames_have_large_labels():
    picture = draw_strip(flat_chain(2048, 2048, 1))
    assert picture.shape == (1, 3, 2048, 2 * 2048 + 32)
    letters = (picture[0, :, :, -2048:] > 0.95).all(0).any(1).nonzero()
    height = letters.max() - letters.min()
    assert 2048 / 10 < height < 2048 / 5  # two lines


def test_labels_come_from_the_windows(make_chain):
    chain = make_chain()
    assert [write_factor_label(chain, layer) for layer in range(1, 5)] == ["1x", "4x", "16x", "64x"]
    assert write_factor_label(make_chain(scale=3.0), 2) == "3.05x"
    assert write_factor_label(make_chain(steps=5), 6) == "1024x"


def test_large_factors_are_rounded_and_halves_go_up():
    factors = (12.25, 999.96, 1000.5, 65536, 1e6, 4.0**16)
    texts = ["12.3x", "1000x", "1001x", "65536x", "1.0e6x", "4.3e9x"]
    assert list(map(format_factor, factors)) == texts


@pytest.mark.parametrize(
    ("window", "label"),
    [
        ((16, 20), "4x3.2x"),
        ((20, 16), "3.2x4x"),
        ((16, 16.8), "4x3.81x"),  # 5 % apart
        ((16, 16.7), "3.92x"),
        ((15.875, 16), "4.02x"),
    ],
)
def test_two_factors_are_named_only_where_they_differ_by_5_percent(make_chain, window, label):
    chain = make_chain()
    windows = (chain.windows[0], Window(0, 0, *window), *chain.windows[2:])
    assert write_factor_label(replace(chain, windows=windows), 2) == label


def drawn_colors(picture):
    """(red, green, blue) of every pixel that is neither grey nor white."""
    pixels = (picture[0] * 255).round().int().flatten(1).unique(dim=1).T.tolist()
    return {tuple(pixel) for pixel in pixels if len({*pixel}) > 1}


@pytest.mark.parametrize("layout", ["row", "grid", "steps"])
def test_a_dot_has_the_color_of_the_real_pixels(layout):
    chain = flat_chain(256, 256, 4)
    # All but the blends at the dots' edges: 256, 64, 16, 4 and 1 pixels each way.
    assert drawn_colors(draw_strip(chain, layout)) >= set(COLOR_STOPS)
    assert not drawn_colors(draw_strip(chain, layout, labels=False))


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("row", ["1x: all real", "4x: 64 x 64 real pixels", "16x: 16 x 16 real pixels"]),
        (
            "steps",
            [
                "1x: all real",
                "4x bicubic: 64 x 64 real pixels, nothing added",
                "4x: 64 x 64 real pixels, the rest is invented",
                "4x: 64 x 64 real pixels",
                "16x bicubic: 16 x 16 real pixels, nothing added",
                "16x: 16 x 16 real pixels, the rest is invented",
            ],
        ),
    ],
)
def test_each_panel_says_how_many_pixels_are_real(layout, expected, monkeypatch):
    """What is drawn can hardly be read back from pixels: what is given to the pen."""
    drawn, text = [], ImageDraw.ImageDraw.text

    def note(pen, place, words, *rest):
        drawn.append(words)
        text(pen, place, words, *rest)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    draw_strip(flat_chain(256, 256, 2), layout)
    assert drawn == [line for panel in expected for line in re.split(": |, ", panel)]


def test_a_long_label_fits_its_frame():
    picture = draw_strip(flat_chain(1024, 256, 16, value=0.0))[0]
    # White letters: none touch the edge of their frame.
    for k in range(17):
        assert (picture[:, 900:, k * 260 : k * 260 + 4] < 0.95).all()
        assert (picture[:, 900:, k * 260 + 252 : k * 260 + 256] < 0.95).all()
