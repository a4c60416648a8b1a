import time
from fractions import Fraction
from math import ceil, inf

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ...coz.chain.zoom_chain import derive_step_seed
from ...coz.fidelity.back_projection import agreement, back_project, describe_agreement
from ...coz.fidelity.metrics import mse_to_decibels
from ...coz.geometry import Window
from ...coz.resample import crop, crop_mirrored
from ...coz.text.step_prompts import choose_step_texts
from ...coz.tiles.blend import TileBlend
from ...coz.tiles.grid import join_batch
from ...coz.tiles.layout import TileLayout, plan_layout
from ...coz.tiles.plan import (
    cut_tile_view,
    find_source_aligned_multiple,
    find_tile_source,
    plan_abutting_tiles,
    resize_mirrored,
)
from ..backbones import backbone_input, make_backbone
from ..backbones.backbone import Backbone, Tile, TilePass
from ..host.images import NotFiniteError, to_bchw, to_image
from ..host.messages import (
    describe_time_left,
    give_notice,
    hide_called_progress,
    join_with_line_breaks,
    show_on_node,
    take_notices,
)
from ..host.surroundings import MIN_PART_RESULT_PIXELS
from ..step.color_fix import CoZColorFix
from .preview import TilePreview
from .tile_prompts import describe_pass, read_layout

LOCAL_COLOR_METHODS = {"none", "wavelet", "ycbcr"}
"""Colour methods that read only a pixel's neighbourhood; the others use statistics of a whole tile."""

COLOR_RING_PIXELS = 32
"""Number of result pixels around a tile that are computed too. wavelet reads 31 pixels to each
side, 1 + 2 + 4 + 8 + 16; back-projection reads farther, but that changes a pixel by a few 255ths at most."""


def are_blended(backbone: Backbone, color_fix: str) -> bool:
    """Whether tiles overlap and are blended.

    Blending is not needed if the backbone sees the surroundings of a tile and the colour method is local.
    """
    return not backbone.sees_surroundings or color_fix not in LOCAL_COLOR_METHODS


def list_network_tiles(
    height: int, width: int, layout: TileLayout, backbone: Backbone, color_fix: str
) -> list[Window]:
    """List the tiles that the network enlarges one by one, for an image of (height, width)."""
    if are_blended(backbone, color_fix):
        return layout.list_windows()
    return plan_abutting_tiles(height, width, layout)


class CoZTiles(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZTiles",
            display_name="CoZ Tiles",
            category="Chain-of-Zoom/step",
            description="Internal: one pass of Full-Image SR, tile by tile.",
            is_dev_only=True,
            inputs=[
                io.Image.Input("image"),
                io.String.Input("prompts"),
                io.Int.Input("number"),
                io.String.Input("layout"),
                backbone_input(),
                io.Int.Input("seed"),
                io.String.Input("color_fix"),
                io.Float.Input("consistency"),
                io.Image.Input("original"),
                io.Boolean.Input("blend_by_detail"),
            ],
            outputs=[io.Image.Output(), io.String.Output("said")],
        )

    @classmethod
    def execute(
        cls,
        image,
        prompts,
        number,
        layout,
        backbone,
        seed,
        color_fix,
        consistency,
        original,
        blend_by_detail,
    ) -> io.NodeOutput:
        picture = to_bchw(image)
        layout = read_layout(layout)
        sharpener = make_backbone(backbone)
        windows = list_network_tiles(*picture.shape[-2:], layout, sharpener, color_fix)
        texts = choose_step_texts("", prompts, len(windows))
        title = describe_pass(number, len(windows))
        show_on_node(title)
        pass_seed = derive_step_seed(seed, number)
        seeds = [derive_step_seed(pass_seed, i + 1) for i in range(len(windows))]
        tiles = TileUpscaler(sharpener, picture, layout, texts, color_fix, consistency, pass_seed)
        result = torch.zeros(1, layout.height, layout.width, 3, device=picture.device)
        is_blended = are_blended(sharpener, color_fix)
        add = TileBlend(layout, result, blend_by_detail).add if is_blended else None
        bar = comfy.utils.ProgressBar(len(windows))
        preview = TilePreview(picture, layout)
        started = time.monotonic()
        done = 0
        for group in tiles.plan_groups(windows):
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                srs = tiles.sharpen(*([each[i] for i in group] for each in (windows, texts, seeds)))
            except NotFiniteError as error:
                place = f"pass {number}, tile {describe_tiles(group)} of {len(windows)}"
                raise NotFiniteError(f"{error} (This was in {place}.)") from error
            for i, sr in zip(group, srs.split(1), strict=True):
                if add:
                    add(i, sr)
                else:
                    crop(result.movedim(-1, 1), windows[i]).copy_(sr)
                preview.add(windows[i], sr)
            done += len(group)
            show_on_node(f"{title}; {done} done{describe_time_left(started, done, len(windows))}")
            bar.update_absolute(done)
        real = f"{original.shape[2]} x {original.shape[1]} pixels of the image"
        size = f"{layout.width} x {layout.height}"
        summary = f"{title}; {real} in {size}, {tiles.describe_agreement()}"
        report = join_with_line_breaks(summary, *take_notices())
        # Clamp in place: the whole result may take half of the machine's memory.
        return io.NodeOutput(result.clamp_(0, 1), report)


def describe_tiles(group: list[int]) -> str:
    """Name the tiles with these indices by their numbers, such as "3" or "3 to 6"."""
    first, last = min(group) + 1, max(group) + 1
    return f"{first}" if first == last else f"{first} to {last}"


class TileUpscaler:
    """Upscales tiles, on a GPU several at once.

    After an out-of-memory error it halves their number, then the tile size.
    """

    def __init__(
        self,
        backbone: Backbone,
        picture: Tensor,
        layout: TileLayout,
        texts: list[str],
        color_fix: str,
        consistency: float,
        seed: int,
    ):
        self.backbone = backbone
        self.picture = picture
        self.layout = layout
        self.color_fix = color_fix
        self.consistency = consistency
        self.limit = inf
        """Side of the largest tile that may fit into memory."""
        self.max_group = 1 if comfy.model_management.get_torch_device().type == "cpu" else inf
        """Maximum number of tiles at once: on the CPU a batch takes no less time than its images."""
        self.squared_errors: list[float] = []
        """Mean squared error of each tile against its source."""
        self.ring = 0
        """Number of result pixels around a tile that are computed with it and cut off at the end."""
        corrects = color_fix == "wavelet" or consistency > 0
        if corrects and not are_blended(backbone, color_fix):
            factor = Fraction(layout.width, picture.shape[-1])
            multiple = find_source_aligned_multiple(
                factor, max(layout.tile_height, layout.tile_width)
            )
            self.ring = ceil(COLOR_RING_PIXELS / multiple) * multiple
        backbone.start_pass(TilePass(picture, layout, texts, self.ring, seed))

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
        if self.backbone.sees_surroundings:
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
        if max(window.height, window.width) <= self.limit:
            try:
                return self._sharpen_without_splitting([window], [text], [seed])
            except Exception as error:
                comfy.model_management.raise_non_oom(error)
                smaller = int(max(window.height, window.width)) // 2
                if smaller < MIN_PART_RESULT_PIXELS:
                    raise
            self.limit = smaller
            give_notice(f"Out of memory: from here on tiles have {smaller} pixels")
            comfy.model_management.soft_empty_cache()
        height, width = int(window.height), int(window.width)
        # Tiles begin at multiples of 4, which at the usual 4x are whole pixels of the image.
        inner = plan_layout(height, width, int(self.limit), int(self.limit) // 4, 4)
        out = torch.zeros(1, height, width, 3, device=self.picture.device)
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
        if self.color_fix != "none" or not self.backbone.sees_surroundings:
            zoomed = [to_image(cut_tile_view(self.picture, self.layout, view)) for view in views]
        tiles = [Tile(*parts) for parts in zip(zoomed, views, seeds, strict=True)]
        with hide_called_progress():
            image = self.backbone.run(tiles, texts)
            if self.color_fix != "none":
                image = CoZColorFix.execute(image, join_batch(zoomed), self.color_fix)[0]
        sr = to_bchw(image).contiguous()
        if self.consistency:
            sr = back_project(sr, self._cut_sources(views), self.consistency).clamp(0, 1)
        sr = crop(sr, Window(self.ring, self.ring, *windows[0][2:]))
        error = 10 ** (-agreement(sr, self._cut_sources(windows)) / 10)
        self.squared_errors += [error] * len(windows)
        return sr

    def _add_ring(self, window: Window) -> Window:
        ring, (x, y, width, height) = self.ring, window
        return Window(x - ring, y - ring, width + 2 * ring, height + 2 * ring)

    def _cut_sources(self, windows: list[Window]) -> Tensor:
        """Cut the regions of the image that windows of the result show, without enlarging them."""
        sources = []
        for window in windows:
            box = find_tile_source(self.picture, self.layout, window)
            sides = max(1, round(box.height)), max(1, round(box.width))
            if (*box,) == (round(box.x), round(box.y), sides[1], sides[0]):
                sources.append(crop_mirrored(self.picture, box))
            else:
                sources.append(resize_mirrored(self.picture, *sides, box))
        return join_batch(sources)

    def describe_agreement(self) -> str:
        """Describe the agreement of all tiles with their source."""
        mean = sum(self.squared_errors) / len(self.squared_errors)
        return describe_agreement(mse_to_decibels(mean))
