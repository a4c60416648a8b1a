from fractions import Fraction
from math import ceil, floor

from comfy_api.latest import io
from torch import Tensor

from ...coz.geometry import Window
from ...coz.resample import resize
from ...coz.tiles.grid import join_batch
from ...coz.tiles.plan import RESIZE_MARGIN_PIXELS, find_input_aligned_multiple, find_tile_input
from ..host.images import to_image
from ..host.messages import give_notice
from ..host.surroundings import WindowUpscaler, get_reach
from ..host.upscale_model import adapt_to_color
from ..step.upscale_step import make_resampling_input
from .backbone import Backbone, Tile, TilePass


class UpscaleModel(Backbone):
    name = "upscale model"
    summary = "ESRGAN and similar models, which read no text."
    reads_text = False
    enlarges_input = True

    @classmethod
    def make_inputs(cls, **socket_options) -> list[io.Input]:
        return [
            io.UpscaleModel.Input(
                "upscale_model",
                **socket_options,
                tooltip="Any model from Load Upscale Model. coz_lite_x4 (faithful) and coz_lite_x4_texture (clean edges) come "
                "with the pack.",
            ),
            make_resampling_input(),
        ]

    def add_nodes(self, add_node, i, view, text) -> list:
        return add_node(
            "CoZUpscaleStep",
            f"sr_{i}",
            upscale_model=self.chosen["upscale_model"],
            crop=view.crop,
            zoomed=view.zoomed,
            resampling=self.chosen["resampling"],
            image=view.frame,
            window=view.window,
        ).out(0)

    def start_pass(self, tile_pass: TilePass) -> None:
        super().start_pass(tile_pass)
        layout = tile_pass.layout
        factor = Fraction(layout.width, tile_pass.image.shape[-1])
        tile = max(layout.tile_height, layout.tile_width)
        upscale_model = adapt_to_color(self.chosen["upscale_model"])
        reach, is_periodic = get_reach(upscale_model)
        is_tiled = len(layout.list_windows()) > 1
        margin = min(reach, floor(tile / factor / 4)) if is_tiled else reach
        margin = max(margin, ceil(tile_pass.ring / factor))
        if margin < reach:
            # plan_tiles rounds a tile down to a multiple: add that multiple, so that enough is left. Then
            # round up to the widget's step of 16.
            enough = ceil(4 * reach * factor) + find_input_aligned_multiple(factor, tile)
            give_notice(
                f"The upscale model needs {reach} pixels around a tile, but tiles of {tile} pixels leave "
                f"only {margin}: lines may show. Raise tile to {ceil(enough / 16) * 16}"
            )
        self.upscaler = WindowUpscaler(upscale_model, margin, is_periodic)

    def choose_group_size(self, window) -> int:
        return self.upscaler.choose_group_size(*self._find_input(window)[1:])

    def run(self, tiles: list[Tile], texts: list[str]) -> Tensor:
        boxes, windows, rings = zip(*(self._find_input(t.window) for t in tiles), strict=True)
        upscaled = self.upscaler.upscale_all(self.tile_pass.image, windows, rings[0])
        images = []
        for tile, box, pixels, sr in zip(tiles, boxes, windows, upscaled, strict=True):
            fx, fy = sr.shape[-1] / pixels.width, sr.shape[-2] / pixels.height
            left, top = (box.x - pixels.x) * fx, (box.y - pixels.y) * fy
            box = Window(left, top, box.width * fx, box.height * fy)
            side = int(tile.window.height), int(tile.window.width)
            images.append(resize(sr, *side, self.chosen["resampling"], box))
        return to_image(join_batch(images))

    def _find_input(self, window: Window) -> tuple[Window, Window, int]:
        """Find the input of a window: its box, the whole pixels to upscale, and their ring."""
        image, layout = self.tile_pass.image, self.tile_pass.layout
        box = find_tile_input(image, layout, window)
        x, y, width, height = box
        left, top, right, bottom = floor(x), floor(y), ceil(x + width), ceil(y + height)
        ring = ceil(self.tile_pass.ring * image.shape[-1] / layout.width)
        scale = self.chosen["upscale_model"].scale
        is_exact = (left, top) == (x, y) and (width * scale, height * scale) == window[2:]
        if not is_exact:
            # The model's result is resized, which reads a little beyond the window.
            left, top = left - RESIZE_MARGIN_PIXELS, top - RESIZE_MARGIN_PIXELS
            right, bottom = right + RESIZE_MARGIN_PIXELS, bottom + RESIZE_MARGIN_PIXELS
            ring += RESIZE_MARGIN_PIXELS
        return box, Window(left, top, right - left, bottom - top), ring
