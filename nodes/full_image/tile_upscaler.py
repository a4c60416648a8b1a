from fractions import Fraction
from math import ceil, inf

import comfy.model_management
import torch
from torch import Tensor

from ...coz.fidelity.back_projection import back_project, measure_agreement
from ...coz.geometry import Window
from ...coz.resample import crop, crop_mirrored
from ...coz.tiles.blend import TileBlend
from ...coz.tiles.grid import join_batch
from ...coz.tiles.layout import TileLayout, plan_layout
from ...coz.tiles.plan import (
    cut_tile_view,
    find_input_aligned_multiple,
    find_tile_input,
    resize_mirrored,
)
from ..backbones.backbone import Backbone, Tile, TilePass
from ..host.images import to_bchw, to_image
from ..host.messages import give_notice, hide_called_progress
from ..host.surroundings import MIN_PART_RESULT_PIXELS
from ..step.color_fix import CoZColorFix

LOCAL_COLOR_METHODS = {"none", "wavelet", "ycbcr"}
"""Color methods that read only a pixel's neighborhood; the others use statistics of a whole tile."""

COLOR_RING_PIXELS = 32
"""Number of result pixels around a tile that are computed too. wavelet reads 31 pixels to each
side, 1 + 2 + 4 + 8 + 16; back-projection reads farther, but that changes a pixel by a few 255ths at most."""


def are_blended(backbone: Backbone, color_fix: str) -> bool:
    """Whether tiles overlap and are blended.

    Blending is not needed if the backbone sees the surroundings of a tile and the color method is local.
    """
    return not backbone.enlarges_input or color_fix not in LOCAL_COLOR_METHODS


class TileUpscaler:
    """Upscales tiles, on a GPU several at once.

    After an out-of-memory error it halves their number, then the tile size.
    """

    def __init__(
        self,
        backbone: Backbone,
        image: Tensor,
        layout: TileLayout,
        texts: list[str],
        color_fix: str,
        consistency: float,
        seed: int,
    ):
        self.backbone = backbone
        self.image = image
        self.layout = layout
        self.color_fix = color_fix
        self.consistency = consistency
        self.max_tile_side = inf
        """Side of the largest tile that may fit into memory."""
        self.max_group = 1 if comfy.model_management.get_torch_device().type == "cpu" else inf
        """Maximum number of tiles at once: on the CPU a batch takes as long as its images one by one."""
        self.squared_errors: list[float] = []
        """Mean squared error of each downscaled tile against the pixels that were enlarged."""
        self.ring = 0
        """Number of result pixels around a tile that are computed with it and cut off at the end."""
        reads_around = color_fix == "wavelet" or consistency > 0
        if reads_around and not are_blended(backbone, color_fix):
            factor = Fraction(layout.width, image.shape[-1])
            multiple = find_input_aligned_multiple(
                factor, max(layout.tile_height, layout.tile_width)
            )
            self.ring = ceil(COLOR_RING_PIXELS / multiple) * multiple
        backbone.start_pass(TilePass(image, layout, texts, self.ring, seed))

    def plan_groups(self, windows: list[Window]) -> list[list[int]]:
        """Divide the tiles into groups that are sharpened at once.

        A group lists the indices of windows of equal size.
        """
        by_size: dict[tuple, list[int]] = {}
        for i, window in enumerate(windows):
            by_size.setdefault(window[2:], []).append(i)
        if self.max_group == 1 or len(by_size) == len(windows):
            return [[i] for i in range(len(windows))]
        groups = []
        for tiles in by_size.values():
            count = self.backbone.choose_group_size(self._add_ring(windows[tiles[0]]))
            groups += [tiles[k : k + count] for k in range(0, len(tiles), count)]
        return groups

    def sharpen(self, windows: list[Window], texts: list[str], seeds: list[int]) -> Tensor:
        """Return the enlarged and sharpened windows of equal size, (B, 3, h, w)."""
        if self.backbone.enlarges_input:
            return self._sharpen_without_splitting(windows, texts, seeds)
        if len(windows) <= self.max_group and len(windows) > 1:
            try:
                return self._sharpen_without_splitting(windows, texts, seeds)
            except Exception as error:
                comfy.model_management.raise_non_oom(error)
            self.max_group = len(windows) // 2
            comfy.model_management.soft_empty_cache()
        if len(windows) > 1:
            middle = len(windows) // 2
            halves = slice(middle), slice(middle, None)
            return torch.cat([self.sharpen(windows[h], texts[h], seeds[h]) for h in halves])
        return self._sharpen_one(windows[0], texts[0], seeds[0])

    def _sharpen_one(self, window: Window, text: str, seed: int) -> Tensor:
        if max(window.height, window.width) <= self.max_tile_side:
            try:
                return self._sharpen_without_splitting([window], [text], [seed])
            except Exception as error:
                comfy.model_management.raise_non_oom(error)
                smaller = int(max(window.height, window.width)) // 2
                if smaller < MIN_PART_RESULT_PIXELS:
                    raise
            self.max_tile_side = smaller
            give_notice(
                f"Out of memory: from here on tiles are at most {smaller} x {smaller} pixels"
            )
            comfy.model_management.soft_empty_cache()
        height, width = int(window.height), int(window.width)
        # Tiles begin at multiples of 4, which at the usual 4x are whole pixels of the image.
        inner = plan_layout(height, width, int(self.max_tile_side), int(self.max_tile_side) // 4, 4)
        out = torch.zeros(1, height, width, 3, device=self.image.device)
        blend = TileBlend(inner, out)
        for i, part in enumerate(inner.list_windows()):
            moved = part._replace(x=part.x + window.x, y=part.y + window.y)
            blend.add(i, self._sharpen_one(moved, text, seed))
        return out.movedim(-1, 1)

    def _sharpen_without_splitting(
        self, windows: list[Window], texts: list[str], seeds: list[int]
    ) -> Tensor:
        views = [self._add_ring(window) for window in windows]
        zoomed: list[Tensor | None] = [None] * len(views)
        if self.color_fix != "none" or not self.backbone.enlarges_input:
            zoomed = [to_image(cut_tile_view(self.image, self.layout, view)) for view in views]
        tiles = [Tile(*parts) for parts in zip(zoomed, views, seeds, strict=True)]
        with hide_called_progress():
            image = self.backbone.run(tiles, texts)
            if self.color_fix != "none":
                image = CoZColorFix.execute(image, join_batch(zoomed), self.color_fix)[0]
        sr = to_bchw(image).contiguous()
        if self.consistency:
            sr = back_project(sr, self._cut_inputs(views), self.consistency).clamp(0, 1)
        sr = crop(sr, Window(self.ring, self.ring, *windows[0][2:]))
        error = 10 ** (-measure_agreement(sr, self._cut_inputs(windows)) / 10)
        self.squared_errors += [error] * len(windows)
        return sr

    def _add_ring(self, window: Window) -> Window:
        ring, (x, y, width, height) = self.ring, window
        return Window(x - ring, y - ring, width + 2 * ring, height + 2 * ring)

    def _cut_inputs(self, windows: list[Window]) -> Tensor:
        """Cut the regions of the image that windows of the result show, without enlarging them."""
        inputs = []
        for window in windows:
            box = find_tile_input(self.image, self.layout, window)
            sides = max(1, round(box.height)), max(1, round(box.width))
            if (*box,) == (round(box.x), round(box.y), sides[1], sides[0]):
                inputs.append(crop_mirrored(self.image, box))
            else:
                inputs.append(resize_mirrored(self.image, *sides, box))
        return join_batch(inputs)
