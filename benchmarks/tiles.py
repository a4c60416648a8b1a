"""Whole pictures in tiles, on a photograph that is half sky, with the built-in model.

Bars: an overlap that follows the picture takes at least 20 % fewer tiles than half a tile
everywhere, at no loss against the untiled result that could be seen; and no seams: the mean step
across tile borders beside the mean step elsewhere is that of the untiled result within 2 %, and
at borders the two differ no more than elsewhere.
"""

import json
from math import log10

import torch
from torch import Tensor

from coz import TileLayout, complexity_map
from coz.tile import plan_tiles
from tools.in_process import load_pack

SCALE, TILE = 4, 512
HALF_SKY = "rocket.jpg"
FEWER_BAR = 0.20
SEAM_BAR = 0.02
SEEN = 50
"""PSNR in dB above which eight bits differ in few pixels, and there by one."""


def borders(layout: TileLayout) -> tuple[list[int], list[int]]:
    """Rows, and columns of the first row of tiles, that begin or follow a tile."""
    height, width = layout.tile_height, layout.tile_width
    rows = {y for row in layout.rows for y in (row.y, row.y + height)}
    columns = {x for start in layout.rows[0].xs for x in (start, start + width)}
    return sorted(rows - {0, layout.height}), sorted(columns - {0, layout.width})


def steps_at(picture: Tensor, rows: list[int]) -> float:
    """Mean step from the row above each of these, of (1, H, W, 3)."""
    return float((picture[:, rows] - picture[:, [row - 1 for row in rows]]).abs().mean())


def main() -> None:
    load_pack(on_cpu=True)
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader

    import nodes

    node = nodes.NODE_CLASS_MAPPINGS
    model = UpscaleModelLoader.execute("coz_lite_x4.safetensors")[0]
    backbone = {"backbone": "upscale model", "upscale_model": model, "resampling": "bicubic"}
    image = node["CoZSamplePicture"].execute(HALF_SKY)[0]
    counts: dict[str, int] = {}
    quality: dict[str, float] = {}
    missed: list[str] = []
    with torch.inference_mode():
        whole = ImageUpscaleWithModel.execute(model, image)[0]
        for name, overlap, adaptive in (
            ("half", TILE // 2, False),
            ("quarter", TILE // 4, False),
            ("adaptive", 0, True),
        ):
            complexity = complexity_map(image.movedim(-1, 1)) if adaptive else None
            layout = plan_tiles(*image.shape[1:3], SCALE, TILE, overlap, complexity)
            tiles = image, "", 1, json.dumps(layout), backbone, 0, "none", 0.0, ""
            tiled = node["CoZTiles"].execute(*tiles)[0]
            counts[name] = len(layout.windows())
            quality[name] = -10 * log10(float((tiled - whole).square().mean()))
            rows, columns = borders(layout)
            ratios, differ = [], []
            # Columns of an adaptive layout differ from row to row.
            for axis in (rows,) if adaptive else (rows, columns):
                one, other = tiled, whole
                if axis is columns:
                    one, other = tiled.transpose(1, 2), whole.transpose(1, 2)
                apart = [k for k in range(1, one.shape[1]) if k not in axis]
                seam = [steps_at(p, axis) / steps_at(p, apart) for p in (one, other)]
                ratios.append(seam[0] / seam[1])
                difference = (one - other).abs()
                differ.append((float(difference[:, axis].max()), float(difference[:, apart].max())))
            worst = max(ratios, key=lambda ratio: abs(ratio - 1))
            print(
                f"tiles: {HALF_SKY}, {name}: {counts[name]} tiles, {quality[name]:.1f} dB against "
                f"untiled; seams {worst:.4f} times untiled (bar: within {SEAM_BAR:.0%}); at borders "
                f"it differs by at most {max(a for a, _ in differ):.4f}, elsewhere {max(b for _, b in differ):.4f}"
            )
            if abs(worst - 1) > SEAM_BAR or any(a > b for a, b in differ):
                missed.append(f"seams of {name}")
    fewer = 1 - counts["adaptive"] / counts["half"]
    print(f"tiles: adaptive takes {fewer:.0%} fewer tiles than half (bar: {FEWER_BAR:.0%})")
    if fewer < FEWER_BAR or quality["adaptive"] < SEEN:
        missed.append("adaptive")
    if missed:
        raise SystemExit(f"tiles: over the bar: {', '.join(missed)}")


if __name__ == "__main__":
    main()
