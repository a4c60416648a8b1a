"""Measure the seams between tiles, and how many tiles and pixels a network computes.

Limits, with the built-in models:
- With tiles of 256 and 512 pixels, no pixel differs by more than 0.5 of 255 levels from the result with a
  single tile.
- A step draws no lines along the edges of a frame of one color.
- With tiles of 1904 pixels, the network computes at most 1.15 times as many pixels as in ComfyUI's own node.
- Adaptive overlap needs at least 20 % fewer tiles than an overlap of half a tile.
"""

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from coz import rate_complexity
from coz.tiles.plan import plan_abutting_tiles, plan_tiles
from tools.host.in_process import load_pack

SCALE = 4
MODELS = ("coz_lite_x4", "coz_lite_x4_texture")
TILES = (512, 256, 128)
MAX_SEAM_LEVELS = 0.5
"""Levels of 255, for tiles of at least 256 pixels. The margin of smaller tiles is narrower than the models'
receptive field."""
HALF_SKY_PICTURE = "rocket.jpg"
MIN_FEWER_TILES = 0.20
MAX_PIXEL_RATIO = 1.15
"""Pixels that the network computes at tile 1904, relative to those in ComfyUI's own node."""
LARGE_SIDE = 2048
"""Side of the image for which the network's pixels are counted."""


def make_images(sample_picture: type) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, (1, 192, 192, 3)). Upscaled they have 768 pixels a side, more than a tile."""
    ramp = torch.linspace(0.1, 0.9, 192)
    down, right = ramp[:, None].expand(192, 192), ramp.expand(192, 192)
    yield "gradient", torch.stack((right, down, (right + down) / 2), -1)[None]
    yield "flat gray", torch.full((1, 192, 192, 3), 0.5)
    for name in ("chelsea.png", "hubble_deep_field.jpg"):
        yield name, sample_picture.execute(name)[0][:, 60:252, 60:252].contiguous()


def main() -> None:
    load_pack(on_cpu=True)
    from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel, UpscaleModelLoader

    import nodes

    classes = nodes.NODE_CLASS_MAPPINGS
    sample_picture = classes["CoZSamplePicture"]
    missed: list[str] = []
    pixel_counts: list[int] = []
    host_upscale = ImageUpscaleWithModel.execute.__func__

    def upscale(image: Tensor, model: object, tile: int, color_fix: str) -> Tensor:
        layout = plan_tiles(*image.shape[1:3], SCALE, tile, tile // 4)
        chosen = {"backbone": "upscale model", "upscale_model": model, "resampling": "bicubic"}
        inputs = image, "", 1, json.dumps(layout), chosen, 0, color_fix, 0.0, image
        return classes["CoZTiles"].execute(*inputs)[0]

    def upscale_and_count(cls: type, upscale_model: object, image: Tensor) -> object:
        pixel_counts.append(image.shape[1] * image.shape[2])
        return host_upscale(cls, upscale_model, image)

    with torch.inference_mode():
        for name in MODELS:
            model = UpscaleModelLoader.execute(f"{name}.safetensors")[0]
            for title, image in make_images(sample_picture):
                for color_fix in ("none", "wavelet"):
                    whole = upscale(image, model, 4096, color_fix)
                    worst = [
                        255 * float((upscale(image, model, tile, color_fix) - whole).abs().max())
                        for tile in TILES
                    ]
                    print(
                        f"tiles: {name}, {title}, {color_fix}, levels of 255: "
                        + ", ".join(
                            f"{d:.3f} at tile {t}" for t, d in zip(TILES, worst, strict=True)
                        )
                        + f" (limit: {MAX_SEAM_LEVELS} at 512 and 256)"
                    )
                    if max(worst[:2]) > MAX_SEAM_LEVELS:
                        missed.append(f"seams of {name} on {title}")
            frame = torch.full((1, 512, 512, 3), 0.5)
            pixel_counts.clear()
            ImageUpscaleWithModel.execute = classmethod(upscale_and_count)
            for center in ((0.5, 0.5), (0.0, 1.0)):
                zoomed, crop, window, *_ = (
                    classes["CoZCropCenterZoom"].execute(frame, 4.0, *center).args
                )
                sr = classes["CoZUpscaleStep"].execute(
                    model, crop, zoomed, image=frame, window=window
                )[0]
                error = 255 * (sr - 0.5).abs().amax((0, 3))
                inside = float(error[100:-100, 100:-100].max())
                error[100:-100, 100:-100] = 0
                print(
                    f"tiles: {name}, a step on flat gray at {center}: {float(error.max()):.2f} of 255 "
                    f"at the edge (limit: 1.2 times inside + 1), {inside:.2f} inside; the network "
                    f"computes {pixel_counts[-1] / 128**2:.2f} times the pixels of the crop"
                )
                if float(error.max()) > 1.2 * inside + 1:
                    missed.append(f"edges of {name}")
            ImageUpscaleWithModel.execute = classmethod(host_upscale)
    host_pixels = count_host_pixels(LARGE_SIDE)
    for tile in (512, 1024, 1904):
        ours = count_our_pixels(LARGE_SIDE, tile, margin=16)
        print(
            f"tiles: {LARGE_SIDE} x {LARGE_SIDE} at tile {tile}, margin 16 input pixels: the network computes "
            f"{ours / host_pixels:.3f} times the pixels of ComfyUI's own node"
        )
        if tile == 1904 and ours > MAX_PIXEL_RATIO * host_pixels:
            missed.append("network pixels")
    image = sample_picture.execute(HALF_SKY_PICTURE)[0]
    layouts = [
        plan_tiles(*image.shape[1:3], SCALE, 512, overlap, complexity)
        for overlap, complexity in ((256, None), (0, rate_complexity(image.movedim(-1, 1))))
    ]
    half, adaptive = (len(layout.list_windows()) for layout in layouts)
    fewer = 1 - adaptive / half
    print(
        f"tiles: adaptive overlap needs {fewer:.0%} fewer tiles than an overlap of half a tile "
        f"(limit: {MIN_FEWER_TILES:.0%})"
    )
    if fewer < MIN_FEWER_TILES:
        missed.append("adaptive overlap")
    if missed:
        raise SystemExit(f"tiles: limits missed: {', '.join(missed)}")


def count_our_pixels(side: int, tile: int, margin: int) -> int:
    """Count the pixels that the network computes in Full-Image SR of a square image, without color fix."""
    layout = plan_tiles(side, side, SCALE, tile, tile // 4)
    return sum(
        int((w.width / SCALE + 2 * margin) * (w.height / SCALE + 2 * margin))
        for w in plan_abutting_tiles(side, side, layout)
    )


def count_host_pixels(side: int, tile: int = 512, overlap: int = 32) -> int:
    """Count the pixels that the network computes in ComfyUI's Upscale Image (comfy.utils.tiled_scale)."""
    starts = [min(start, side - overlap) for start in range(0, side - overlap, tile - overlap)]
    return sum(min(tile, side - start) for start in starts) ** 2


if __name__ == "__main__":
    main()
