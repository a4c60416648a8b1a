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
from ...coz.resample import crop, resize
from ...coz.text.step_prompts import choose_step_texts
from ...coz.tiles.blend import TileBlend
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
from ..host.images import NotFiniteError, compute_preview_size, show_frame, to_bchw, to_image
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
from .tile_prompts import describe_pass, read_layout

LOCAL_COLOR_METHODS = {"none", "wavelet", "ycbcr"}
"""Colour methods that read only a pixel's neighbourhood; the others use statistics of a whole tile."""

COLOR_RING_PIXELS = 32
"""Number of result pixels around a tile that are computed too. wavelet reads 31 pixels to each
side, 1 + 2 + 4 + 8 + 16; back-projection reads farther, but that changes a pixel by a few 255ths at most."""

MIN_PREVIEW_SECONDS = 0.5
"""Minimum time between two previews of a pass."""


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
    ) -> io.NodeOutput:
        picture = to_bchw(image)
        layout = read_layout(layout)
        sharpener = make_backbone(backbone)
        windows = list_network_tiles(*picture.shape[-2:], layout, sharpener, color_fix)
        texts = choose_step_texts("", prompts, len(windows))
        title = describe_pass(number, len(windows))
        show_on_node(title)
        pass_seed = derive_step_seed(seed, number)
        tiles = TileSharpener(sharpener, picture, layout, texts, color_fix, consistency, pass_seed)
        result = torch.zeros(1, layout.height, layout.width, 3, device=picture.device)
        add = TileBlend(layout, result).add if are_blended(sharpener, color_fix) else None
        bar = comfy.utils.ProgressBar(len(windows))
        preview = TilePreview(picture, layout)
        started = time.monotonic()
        for i, (window, text) in enumerate(zip(windows, texts, strict=True)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                sr = tiles.sharpen(window, text, derive_step_seed(pass_seed, i + 1))
            except NotFiniteError as error:
                place = f"pass {number}, tile {i + 1} of {len(windows)}"
                raise NotFiniteError(f"{error} (This was in {place}.)") from error
            if add:
                add(i, sr)
            else:
                crop(result.movedim(-1, 1), window).copy_(sr)
            show_on_node(f"{title}; {i + 1} done{describe_time_left(started, i + 1, len(windows))}")
            preview.add(window, sr)
            bar.update_absolute(i + 1)
        real = f"{original.shape[2]} x {original.shape[1]} pixels of the image"
        size = f"{layout.width} x {layout.height}"
        summary = f"{title}; {real} in {size}, {tiles.describe_agreement()}"
        report = join_with_line_breaks(summary, *take_notices())
        # Clamp in place: the whole result may take half of the machine's memory.
        return io.NodeOutput(result.clamp_(0, 1), report)


class TilePreview:
    """A preview of the image that a pass enlarges, in which the finished tiles appear."""

    def __init__(self, picture: Tensor, layout: TileLayout):
        height, width = compute_preview_size(layout.height, layout.width)
        self.shrink = height / layout.height, width / layout.width
        self.canvas = resize(picture, height, width).clone()
        self.show()

    def show(self) -> None:
        self.shown_at = time.monotonic()
        show_frame(self.canvas)

    def add(self, window: Window, sr: Tensor) -> None:
        rows, columns = self.shrink
        top, bottom = (round(y * rows) for y in (window.y, window.y + window.height))
        left, right = (round(x * columns) for x in (window.x, window.x + window.width))
        if left < right and top < bottom:
            self.canvas[..., top:bottom, left:right] = resize(sr, bottom - top, right - left)
        if time.monotonic() - self.shown_at > MIN_PREVIEW_SECONDS:
            self.show()


class TileSharpener:
    """Upscales one tile at a time; after an out-of-memory error it halves the tile size."""

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

    def sharpen(self, window: Window, text: str, seed: int) -> Tensor:
        """Return the enlarged and sharpened window, (1, 3, h, w)."""
        if self.backbone.sees_surroundings:
            return self._sharpen_without_splitting(window, text, seed)
        if max(window.height, window.width) <= self.limit:
            try:
                return self._sharpen_without_splitting(window, text, seed)
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
            blend.add(i, self.sharpen(moved, text, seed))
        return out.movedim(-1, 1)

    def _sharpen_without_splitting(self, window: Window, text: str, seed: int) -> Tensor:
        ring = self.ring
        x, y, width, height = window
        view = Window(x - ring, y - ring, width + 2 * ring, height + 2 * ring)
        zoomed = None
        if self.color_fix != "none" or not self.backbone.sees_surroundings:
            zoomed = to_image(cut_tile_view(self.picture, self.layout, view))
        with hide_called_progress():
            image = self.backbone.run(Tile(zoomed, view, seed), text)
            if self.color_fix != "none":
                image = CoZColorFix.execute(image, zoomed, self.color_fix)[0]
        sr = to_bchw(image).contiguous()
        if self.consistency:
            sr = back_project(sr, self._cut_source(view), self.consistency).clamp(0, 1)
        sr = crop(sr, Window(ring, ring, width, height))
        self.squared_errors.append(10 ** (-agreement(sr, self._cut_source(window)) / 10))
        return sr

    def _cut_source(self, window: Window) -> Tensor:
        """Cut the region of the image that a window of the result shows, without enlarging it."""
        box = find_tile_source(self.picture, self.layout, window)
        sides = max(1, round(box.height)), max(1, round(box.width))
        return resize_mirrored(self.picture, *sides, box)

    def describe_agreement(self) -> str:
        """Describe the agreement of all tiles with their source."""
        mean = sum(self.squared_errors) / len(self.squared_errors)
        return describe_agreement(mse_to_decibels(mean))
