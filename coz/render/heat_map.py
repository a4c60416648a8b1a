"""Draw a map over an image as a heat map."""

import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..color.align import compute_luma
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
"""RGB colors from cold to hot, in even steps of lightness: dark violet, red, orange, yellow."""

DIMMED_BRIGHTNESS = 0.6
"""Brightness of the image under the heat, relative to the original."""

MAX_HEAT_OPACITY = 0.75
"""Opacity of the hottest color."""

PANEL_SIDE_PIXELS = 512
"""Long side of a panel in ``draw_map_sheet``: larger images are downscaled, small ones enlarged."""

TITLE_LINE_CHARACTERS = 40
"""Number of characters in a line as wide as the panel, which decides the font size."""

LEGEND_GRAY = 0.7
"""Gray value of the legend's color bar under the heat."""


def color_heat(heat: Tensor) -> Tensor:
    """Map heat (B, 1, H, W) in [0, 1] to the colors of ``HEAT_COLORS``, (B, 3, H, W)."""
    colors = torch.tensor(HEAT_COLORS).to(heat)
    place = heat[:, 0].clamp(0, 1) * (len(HEAT_COLORS) - 1)
    below = place.long().clamp(max=len(HEAT_COLORS) - 2)
    mixed = torch.lerp(colors[below], colors[below + 1], (place - below)[..., None])
    return mixed.movedim(-1, 1)


def overlay_heat(image: Tensor, heat: Tensor) -> Tensor:
    """Make the image gray and dim, and blend the colors of ``color_heat`` over its hot places.

    Args:
        image: (B, 3, H, W) in [0, 1].
        heat: (B, 1, H, W) in [0, 1]; 0 leaves the image gray.

    Returns:
        (B, 3, H, W) float32 in [0, 1].
    """
    gray = compute_luma(image) * DIMMED_BRIGHTNESS
    # Even the hottest place shows the lightness of the image.
    return torch.lerp(gray.expand_as(image), color_heat(heat), MAX_HEAT_OPACITY * heat.clamp(0, 1))


def draw_map_sheet(
    title: str, frame: Tensor, heat: Tensor | None = None, ends: tuple[str, str] = ("", "")
) -> Tensor:
    """Draw a title, a legend of the colors, the heat map and the image, from top to bottom.

    Args:
        title: A short sentence.
        frame: (1, 3, H, W) in [0, 1].
        heat: (1, 1, H, W) in [0, 1]. None shows only the title and the image.
        ends: Meanings of the coldest and the hottest color.

    Returns:
        (1, 3, h, w) float32 in [0, 1], at least ``PANEL_SIDE_PIXELS`` wide.
    """
    margin, size = PANEL_SIDE_PIXELS // 48, PANEL_SIDE_PIXELS * 1.8 / TITLE_LINE_CHARACTERS
    font = ImageFont.load_default(size)
    text = textwrap.fill(title, TITLE_LINE_CHARACTERS)
    panels = [frame] if heat is None else [overlay_heat(frame, heat), frame]
    images = [_fit_panel(panel) for panel in panels]
    line = round(size * 1.3)
    top = line * (text.count("\n") + 1) + margin
    legend = 0 if heat is None else line + margin
    height = top + legend + sum(image.height + margin for image in images)
    sheet = Image.new("RGB", (PANEL_SIDE_PIXELS + 2 * margin, height))
    pen = ImageDraw.Draw(sheet)
    pen.multiline_text((margin, margin // 2), text, "white", font, spacing=line - size)
    if heat is not None:
        cold, hot = (pen.textlength(end, font) for end in ends)
        left, right = round(cold) + 2 * margin, sheet.width - round(hot) - 2 * margin
        pen.text((margin, top), ends[0], "white", font)
        pen.text((right + margin, top), ends[1], "white", font)
        values = torch.linspace(0, 1, max(right - left, 2)).expand(1, 1, line, -1)
        gray = torch.full((1, 3, *values.shape[-2:]), LEGEND_GRAY)
        sheet.paste(to_pillow(overlay_heat(gray, values)), (left, top))
    top += legend
    for image in images:
        sheet.paste(image, ((sheet.width - image.width) // 2, top))
        top += image.height + margin
    return from_pillow(sheet)


def _fit_panel(image: Tensor) -> Image.Image:
    panel = to_pillow(image)
    times = PANEL_SIDE_PIXELS // max(panel.size)
    if times:
        return panel.resize((panel.width * times, panel.height * times), Image.Resampling.NEAREST)
    panel.thumbnail((PANEL_SIDE_PIXELS, PANEL_SIDE_PIXELS), Image.Resampling.LANCZOS)
    return panel
