"""Draw a chain as one image: its frames side by side, or each step before and after."""

from bisect import bisect_right
from decimal import ROUND_HALF_UP, Context
from math import ceil, log, sqrt
from typing import Literal, NamedTuple, get_args

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..chain.real_pixels import (
    RealPixels,
    count_real_pixels,
    describe_real_pixels,
    pick_real_pixels_color,
    round_to_three_digits,
)
from ..chain.zoom_chain import ZoomChain
from ..geometry import Window
from ..resample import crop, resize
from ..text.step_prompts import replace_lone_surrogates
from .pillow import from_pillow, to_pillow

Layout = Literal["row", "grid", "steps"]

LAYOUTS: list[Layout] = list(get_args(Layout))

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MIN_PANEL_SIDE_PIXELS = 256
"""Smaller frames are enlarged to at least this short side, so that their labels can be read."""

MAX_STRIP_SIDE_PIXELS = 32_768
"""Maximum side: five frames of 4096 fit side by side, and many programs open no larger images."""

MAX_STRIP_PIXELS = 100_000_000
"""Maximum size: 1.2 GB as float32, and about as much again while drawing."""

LINE_SPACING = 1.2
"""Height of a label's line, relative to its font size."""

GAP_SHARE = 1 / 64
"""White space between two panels. This and the four sizes below are shares of a panel's short side."""

LABEL_HEIGHT_SHARE = 1 / 12
REAL_PIXELS_HEIGHT_SHARE = 1 / 18
CAPTION_HEIGHT_SHARE = 1 / 22
MARGIN_SHARE = 1 / 32

MAX_CAPTION_LINES = 3

ELLIPSIS = "..."

MIN_RATIO_TO_WRITE_BOTH = 1.05
"""If a layer's horizontal and vertical factors differ by this ratio or more, the label gives both.
``js/factors.js`` has the same."""


class Panel(NamedTuple):
    """One image of the strip and what is drawn into it."""

    frame: Tensor
    label: str
    real: RealPixels
    window: Window | None = None
    """The region that is enlarged next, in the frame's pixels."""
    note: str = ""


class Row(NamedTuple):
    """Panels side by side, and a caption below each or one below all."""

    panels: list[Panel]
    captions: list[str]


def write_factor_label(chain: ZoomChain, layer: int) -> str:
    """Write the magnification of a layer: 16x, or 4x3.2x (across, down) if the axes differ much.

    If they differ by less than ``MIN_RATIO_TO_WRITE_BOTH``, the factor is their geometric mean, whose square
    is the factor in area.
    """
    across, down = chain.compute_magnification(layer)
    differ = max(across, down) / min(across, down) >= MIN_RATIO_TO_WRITE_BOTH
    factors = (across, down) if differ else (sqrt(across * down),)
    return "".join(map(format_factor, factors))


def format_factor(factor: float) -> str:
    """Write a factor as 16x, 65536x or 4.3e9x. ``js/factors.js`` has the same rule."""
    if factor < 1e6:
        return f"{round_to_three_digits(factor):.10g}x"
    return f"{Context(2, ROUND_HALF_UP).create_decimal_from_float(factor):.1e}x".replace("+", "")


def draw_strip(chain: ZoomChain, layout: Layout = "row", labels: bool = True) -> Tensor:
    """Draw the frames x_0..x_n in one image.

    Args:
        chain: Its frames are in [0, 1].
        layout: "row" puts the frames side by side, "grid" in rows as close to a square as
            possible. "steps" draws a row for each step: the frame it starts from, its crop enlarged
            with bicubic, and the result.
        labels: Draw each magnification and the outline of the next window, and write the prompts
            below; small frames are enlarged by a whole factor to make the labels readable. Without
            labels only the frames' own pixels are shown.

    Returns:
        (1, 3, H, W) float32 in [0, 1].

    Raises:
        ValueError: If the strip would exceed ``MAX_STRIP_SIDE_PIXELS`` or ``MAX_STRIP_PIXELS``.
    """
    side = min(chain.frames[1].shape[-2:])
    enlargement = (
        ceil(MIN_PANEL_SIDE_PIXELS / side) if labels and side < MIN_PANEL_SIDE_PIXELS else 1
    )
    _require_size(chain, layout, enlargement)
    is_by_step = layout == "steps" and chain.steps
    rows = _list_step_rows(chain) if is_by_step else _list_frame_rows(chain, layout)
    images = [_draw_row(row, side * enlargement, enlargement, labels) for row in rows]
    gap = round(side * enlargement * GAP_SHARE)
    height = sum(image.height + gap for image in images) - gap
    sheet = Image.new("RGB", (max(image.width for image in images), height), "white")
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return from_pillow(sheet).to(chain.frames[1])


def _require_size(chain: ZoomChain, layout: Layout, enlargement: int) -> None:
    """Refuse a strip that would be too large, before it is drawn. Captions are not counted."""
    height, width = (length * enlargement for length in chain.frames[1].shape[-2:])
    count = chain.steps + 1
    columns, rows = count, 1
    if layout == "grid":
        columns = _choose_columns(count, width / height)
        rows = ceil(count / columns)
    elif layout == "steps" and chain.steps:
        columns, rows = 3, chain.steps
    gap = round(min(height, width) * GAP_SHARE)
    across, down = columns * (width + gap) - gap, rows * (height + gap) - gap
    if max(across, down) > MAX_STRIP_SIDE_PIXELS or across * down > MAX_STRIP_PIXELS:
        enlarged = f", enlarged {enlargement} times for their labels" if enlargement > 1 else ""
        raise ValueError(
            f"the strip would have {across:,} x {down:,} pixels: {count} frames of {width // enlargement} x "
            f"{height // enlargement}{enlarged}. At most {MAX_STRIP_SIDE_PIXELS:,} along a side and "
            f"{MAX_STRIP_PIXELS // 10**6} megapixels are made. Choose another layout, turn labels off, or "
            "make the chain with frame whole picture square, a smaller size or fewer steps"
        )


def _list_frame_rows(chain: ZoomChain, layout: Layout) -> list[Row]:
    panels = [
        Panel(
            chain.frames[layer],
            write_factor_label(chain, layer),
            count_real_pixels(chain, layer),
            window,
        )
        for layer, window in enumerate((*chain.windows[1:], None), 1)
    ]
    captions = ["", *chain.prompts]
    height, width = chain.frames[1].shape[-2:]
    columns = len(panels)
    if layout == "grid":
        columns = _choose_columns(len(panels), width / height)
    return [
        Row(panels[start : start + columns], captions[start : start + columns])
        for start in range(0, len(panels), columns)
    ]


def _choose_columns(count: int, aspect_ratio: float) -> int:
    """Choose the columns that make the sheet closest to a square, and of two equal choices the wider."""

    def measure_distance_from_square(columns: int) -> float:
        return round(abs(log(columns * aspect_ratio / ceil(count / columns))), 6)

    return min(range(count, 0, -1), key=measure_distance_from_square)


def _list_step_rows(chain: ZoomChain) -> list[Row]:
    rows: list[Row] = []
    height, width = chain.frames[1].shape[-2:]
    for step, prompt in enumerate(chain.prompts, 1):
        before, window, after = chain.frames[step], chain.windows[step], chain.frames[step + 1]
        enlarged = resize(crop(before, window), height, width).clamp(0, 1)
        label = write_factor_label(chain, step + 1)
        real = count_real_pixels(chain, step + 1)
        panels = [
            Panel(before, write_factor_label(chain, step), count_real_pixels(chain, step), window),
            Panel(enlarged, f"{label} bicubic", real, note="nothing added"),
            Panel(after, label, real, note="the rest is invented"),
        ]
        rows.append(Row(panels, [prompt]))
    return rows


def _draw_row(row: Row, side: int, enlargement: int, labels: bool) -> Image.Image:
    """Draw the panels of a row with their captions. ``enlargement`` is a factor for the panels' images."""
    gap, margin = round(side * GAP_SHARE), round(side * MARGIN_SHARE)
    images = [_draw_panel(panel, side, enlargement, labels) for panel in row.panels]
    width, height = images[0].size
    whole = len(images) * (width + gap) - gap
    column = whole if len(row.captions) == 1 else width
    font = _load_font(side * CAPTION_HEIGHT_SHARE)
    captions = [_wrap(text, font, column - margin) for text in row.captions] if labels else []
    lines = max(map(len, captions), default=0)
    line_height = sum(font.getmetrics()) if isinstance(font, ImageFont.FreeTypeFont) else side // 20
    band = lines * line_height + margin if lines else 0
    sheet = Image.new("RGB", (whole, height + band), "white")
    for k, image in enumerate(images):
        sheet.paste(image, (k * (width + gap), 0))
    pen = ImageDraw.Draw(sheet)
    for k, caption in enumerate(captions):
        for line, text in enumerate(caption):
            place = (k * (width + gap) + margin // 2, height + margin // 2 + line * line_height)
            pen.text(place, text, "black", font)
    return sheet


def _draw_panel(panel: Panel, side: int, enlargement: int, labels: bool) -> Image.Image:
    image = to_pillow(panel.frame)
    if not labels:
        return image
    width, height = image.width * enlargement, image.height * enlargement
    image = image.resize((width, height), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image, "RGBA")
    if panel.window is not None:
        x, y, w, h = (value * enlargement for value in panel.window)
        line = max(1, side // 256)
        for color, out in (((0, 0, 0, 110), 2 * line), ((255, 255, 255, 230), line)):
            left, top = max(x - out, 0), max(y - out, 0)
            right, bottom = min(x + w + out, width) - 1, min(y + h + out, height) - 1
            pen.rectangle((left, top, right, bottom), outline=color, width=line)
    draw_label(image, panel.label, panel.real, side, panel.note)
    return image


def draw_label(image: Image.Image, label: str, real: RealPixels, side: int, note: str = "") -> None:
    """Draw a label such as "16x" on an RGB image, and below it a line with the number of real pixels.

    That line begins with a dot, whose color shows the share of real pixels. A ``note`` is a further line.
    The size of the text follows ``side``, the short side of the image.
    """
    pen = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    margin = side // 32
    small, dot = side * REAL_PIXELS_HEIGHT_SHARE, side * REAL_PIXELS_HEIGHT_SHARE * 0.7
    words = describe_real_pixels(real)
    lines = [(label, side * LABEL_HEIGHT_SHARE, 0.0), (words, small, dot * 1.5)]
    if note:
        lines.append((note, small, dot * 1.5))
    full = max(indent + pen.textlength(text, _load_font(size)) for text, size, indent in lines)
    shrink = min(1, (width - 4 * margin) / full)
    spacing = LINE_SPACING * shrink
    left, bottom = 2 * margin, height - 2 * margin
    top = bottom - spacing * sum(size for _, size, _ in lines)
    plate = (left - margin, top - margin / 2, left + full * shrink + margin, bottom + margin / 2)
    pen.rounded_rectangle(plate, radius=margin, fill=(0, 0, 0, 170))
    for text, size, indent in lines:
        middle = top + spacing * size / 2
        pen.text((left + indent * shrink, middle), text, "white", _load_font(size * shrink), "lm")
        if text == words:
            radius = dot * shrink / 2
            circle = (left, middle - radius, left + 2 * radius, middle + radius)
            pen.ellipse(circle, fill=pick_real_pixels_color(real.share))
        top += spacing * size


def _load_font(size: float) -> Font:
    # A frame without labels may be tiny, but a font needs at least one pixel.
    return ImageFont.load_default(max(1.0, size))


def _wrap(text: str, font: Font, width: float) -> list[str]:
    """Wrap a text in at most ``MAX_CAPTION_LINES`` lines of ``width`` pixels; cut off the rest."""
    # A record edited by hand may hold a lone surrogate.
    rest = " ".join(replace_lone_surrogates(text).split())
    lines: list[str] = []
    while rest and len(lines) < MAX_CAPTION_LINES:
        if font.getlength(rest) <= width:
            return [*lines, rest]
        length = _count_fitting(rest, font, width)
        space = rest.rfind(" ", 0, length + 1)
        length = space if space > 0 else length
        lines.append(rest[:length])
        rest = rest[length:].lstrip()
    if rest:
        length = _count_fitting(lines[-1], font, width - font.getlength(ELLIPSIS))
        lines[-1] = lines[-1][:length].rstrip() + ELLIPSIS
    return lines


def _count_fitting(text: str, font: Font, width: float) -> int:
    """Count how many characters fit, at least one."""
    lengths = range(1, len(text) + 1)
    return max(1, bisect_right(lengths, width, key=lambda n: font.getlength(text[:n])))
