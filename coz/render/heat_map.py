"""A map laid over a picture as heat."""

import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..color.align import luma
from .pillow import from_pillow, to_pillow

HEAT_COLORS = (
    (0.08, 0.05, 0.25),
    (0.34, 0.06, 0.43),
    (0.58, 0.15, 0.40),
    (0.80, 0.27, 0.28),
    (0.96, 0.49, 0.12),
    (0.98, 0.78, 0.20),
    (0.99, 1.00, 0.64),
)
"""Red, green, blue from cold to hot, in even steps of lightness: dark violet, red, orange, yellow."""

DIMMED_BRIGHTNESS = 0.6
"""Brightness that is left to the picture under the heat."""

MAX_HEAT_OPACITY = 0.75
"""Most that the heat hides of the picture."""

PANEL_SIDE_PIXELS = 512
"""Long side of a picture in ``explain_map``: larger ones are shrunk, small ones enlarged."""

TITLE_LINE_CHARACTERS = 40
"""Of a line of text as wide as the panel; decides the size of the letters."""

LEGEND_GREY = 0.7
"""Of the legend's colour bar, under the heat."""


def color_heat(heat: Tensor) -> Tensor:
    """(B, 1, H, W) in [0, 1] as colours (B, 3, H, W): dark violet, red, orange, yellow."""
    colors = torch.tensor(HEAT_COLORS).to(heat)
    place = heat[:, 0].clamp(0, 1) * (len(HEAT_COLORS) - 1)
    below = place.long().clamp(max=len(HEAT_COLORS) - 2)
    mixed = torch.lerp(colors[below], colors[below + 1], (place - below)[..., None])
    return mixed.movedim(-1, 1)


def lay_over(picture: Tensor, heat: Tensor) -> Tensor:
    """The picture in grey and dimmed, its hot places in the colours of ``color_heat``.

    Args:
        picture: (B, 3, H, W) in [0, 1].
        heat: (B, 1, H, W) in [0, 1]; 0 leaves the picture grey.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    grey = luma(picture) * DIMMED_BRIGHTNESS
    # Light and dark of the picture stay to be seen in the hottest place.
    return torch.lerp(
        grey.expand_as(picture), color_heat(heat), MAX_HEAT_OPACITY * heat.clamp(0, 1)
    )


def explain_map(
    title: str, frame: Tensor, heat: Tensor | None = None, ends: tuple[str, str] = ("", "")
) -> Tensor:
    """A heat map below a title and the meaning of its colours, and the picture itself below it.

    Args:
        title: a short sentence.
        frame: (1, 3, H, W) in [0, 1].
        heat: (1, 1, H, W) in [0, 1]. None shows the title and the picture alone.
        ends: what the coldest and the hottest colour mean.

    Returns:
        (1, 3, h, w) float32 in [0, 1], at least ``PANEL_SIDE_PIXELS`` wide.
    """
    margin, size = PANEL_SIDE_PIXELS // 48, PANEL_SIDE_PIXELS * 1.8 / TITLE_LINE_CHARACTERS
    font = ImageFont.load_default(size)
    text = textwrap.fill(title, TITLE_LINE_CHARACTERS)
    panels = [frame] if heat is None else [lay_over(frame, heat), frame]
    pictures = [_fit_panel(panel) for panel in panels]
    line = round(size * 1.3)
    top = line * (text.count("\n") + 1) + margin
    legend = 0 if heat is None else line + margin
    height = top + legend + sum(picture.height + margin for picture in pictures)
    sheet = Image.new("RGB", (PANEL_SIDE_PIXELS + 2 * margin, height))
    pen = ImageDraw.Draw(sheet)
    pen.multiline_text((margin, margin // 2), text, "white", font, spacing=line - size)
    if heat is not None:
        cold, hot = (pen.textlength(end, font) for end in ends)
        left, right = round(cold) + 2 * margin, sheet.width - round(hot) - 2 * margin
        pen.text((margin, top), ends[0], "white", font)
        pen.text((right + margin, top), ends[1], "white", font)
        values = torch.linspace(0, 1, max(right - left, 2)).expand(1, 1, line, -1)
        grey = torch.full((1, 3, *values.shape[-2:]), LEGEND_GREY)
        sheet.paste(to_pillow(lay_over(grey, values)), (left, top))
    top += legend
    for picture in pictures:
        sheet.paste(picture, ((sheet.width - picture.width) // 2, top))
        top += picture.height + margin
    return from_pillow(sheet)


def _fit_panel(image: Tensor) -> Image.Image:
    picture = to_pillow(image)
    times = PANEL_SIDE_PIXELS // max(picture.size)
    if times:
        return picture.resize(
            (picture.width * times, picture.height * times), Image.Resampling.NEAREST
        )
    picture.thumbnail((PANEL_SIDE_PIXELS, PANEL_SIDE_PIXELS), Image.Resampling.LANCZOS)
    return picture
