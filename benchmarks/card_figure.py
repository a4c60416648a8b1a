"""Draw the figure of benchmarks.card: the arithmetic of a chain, and of enlarging the whole image."""

import math
from collections.abc import Mapping

from coz.tiles.layout import plan_layout

FACTORS = (4, 16, 64, 256)
FRAME_SIDE_PIXELS = 512
OVERLAPS = {"SD3": 128, "Real-ESRGAN": 0}
"""Backbone -> pixels by which the views of Full-Image SR overlap. Those of upscale models abut."""
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 640, 400, 70, 30, 340
COLORS = {"SD3": "#c0392b", "Real-ESRGAN": "#2471a3"}


def count_views(factor: int, overlap: int) -> int:
    """Count the views of 512 pixels in all 4x passes that enlarge a whole image of 512 pixels by a factor."""
    side, count = FRAME_SIDE_PIXELS, 0
    while side < FRAME_SIDE_PIXELS * factor:
        side *= 4
        rows = plan_layout(side, side, FRAME_SIDE_PIXELS, overlap).rows
        count += sum(len(row.xs) for row in rows)
    return count


def draw_costs(
    flops: Mapping[str, tuple[float, float]],
) -> tuple[str, list[str], list[list[str]]]:
    """Draw the SVG; return it with the head and the rows of its table.

    Args:
        flops: Backbone -> FLOPs of a view in a chain, and FLOPs of a view of a whole image.
    """
    lines = {}
    for name, (chain_view, image_view) in flops.items():
        lines[f"{name}, chain"] = [chain_view * i / 1e12 for i in range(1, len(FACTORS) + 1)]
        lines[f"{name}, whole picture"] = [
            image_view * count_views(f, OVERLAPS[name]) / 1e12 for f in FACTORS
        ]
    max_power = math.ceil(max(math.log10(y) for line in lines.values() for y in line))
    min_power = math.floor(min(math.log10(y) for line in lines.values() for y in line))

    def place(i: int, y: float) -> tuple[float, float]:
        x = LEFT + i * (WIDTH - LEFT - 190) / (len(FACTORS) - 1)
        return x, BOTTOM - (math.log10(y) - min_power) / (max_power - min_power) * (BOTTOM - TOP)

    marks = []
    for power in range(min_power, max_power + 1):
        _, y = place(0, 10.0**power)
        marks.append(f'<path d="M{LEFT} {y:.0f}H{WIDTH - 190}" stroke="#ddd"/>')
        label = f"{10.0**power:,.10g}"
        marks.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{label}</text>')
    for i, factor in enumerate(FACTORS):
        x, _ = place(i, 10.0**min_power)
        marks.append(f'<text x="{x:.0f}" y="{BOTTOM + 20}" text-anchor="middle">{factor}x</text>')
    for name, values in lines.items():
        points = " ".join("{:.1f},{:.1f}".format(*place(i, y)) for i, y in enumerate(values))
        color = COLORS[name.partition(",")[0]]
        dash = ' stroke-dasharray="6 4"' if "whole" in name else ""
        marks.append(
            f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
        )
        x, y = place(len(FACTORS) - 1, values[-1])
        marks.append(f'<text x="{x + 8:.0f}" y="{y + 4:.0f}" fill="{color}">{name}</text>')
    title = "TFLOP to zoom into one spot of a picture of 512 px (simulated)"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{LEFT}" y="18">{title}</text>{"".join(marks)}</svg>\n'
    )
    rows = [
        [f"{factor}x", *(f"{line[i]:,.1f}" for line in lines.values())]
        for i, factor in enumerate(FACTORS)
    ]
    return svg, ["factor", *lines], rows
