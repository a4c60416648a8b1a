import time
from fractions import Fraction
from math import ceil, floor, inf, log10

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from nodes import CLIPTextEncode

from ..coz.blend import TileBlend
from ..coz.chain import step_seed
from ..coz.consistency import agreement, back_project, describe_agreement
from ..coz.geometry import TileLayout, Window, tile_layout
from ..coz.noise import NoiseField
from ..coz.prompt import step_texts, whole_characters
from ..coz.resample import crop, resize
from ..coz.tile import (
    RESIZE_SUPPORT,
    abutting_tiles,
    grid_multiple,
    resize_mirrored,
    tile_source,
    tile_view,
)
from .backbone import ANY_CHECKPOINT, ONE_STEP, UPSCALE_MODEL, backbone_input
from .color import CoZColorFix
from .diffusion import CoZSRStep
from .encode import CoZEncodePrompt, require_clip
from .ensemble import take_colour
from .host import (
    NotFiniteError,
    apart,
    join_lines,
    notice,
    show,
    take_notices,
    time_left,
    to_bchw,
    to_image,
)
from .refine import refined, size_note
from .surroundings import MIN_PART_RESULT_PIXELS, Upscaler, reach_of
from .tile_prompts import pass_title, read_layout

LOCAL_COLOR = {"none", "wavelet", "ycbcr"}
"""Colour methods that read a pixel's neighbourhood; the others take statistics of a whole tile."""

COLOR_RING = 32
"""Result pixels around a tile. wavelet reads 31 at its five levels; what back-projection would read
beyond them changes a pixel by a few levels of 255 at most."""


def are_blended(backbone: str, color_fix: str) -> bool:
    """Whether tiles overlap: upscale models see the surroundings of a tile, so theirs need not."""
    return backbone != UPSCALE_MODEL or color_fix not in LOCAL_COLOR


def network_tiles(
    height: int, width: int, layout: TileLayout, backbone: str, color_fix: str
) -> list[Window]:
    """The tiles that the network enlarges one by one, for a picture of (height, width)."""
    if are_blended(backbone, color_fix):
        return layout.windows()
    return abutting_tiles(height, width, layout)


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
        method = backbone["backbone"]
        windows = network_tiles(*picture.shape[-2:], layout, method, color_fix)
        texts = step_texts("", prompts, len(windows))
        title = pass_title(number, len(windows))
        show(title)
        noise = NoiseField(layout.height, layout.width, step_seed(seed, number))
        sharpener = Sharpener(picture, layout, backbone, color_fix, consistency, noise)
        if method == ANY_CHECKPOINT:
            sharpener.tell_size()
        sharpener.encode(texts)
        result = torch.zeros(1, layout.height, layout.width, 3, device=picture.device)
        add = TileBlend(layout, result).add if are_blended(method, color_fix) else None
        bar = comfy.utils.ProgressBar(len(windows))
        started = time.monotonic()
        for i, (window, text) in enumerate(zip(windows, texts, strict=True)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            tile_seed = step_seed(step_seed(seed, number), i + 1)
            try:
                sr = sharpener.sharpen(window, text, tile_seed)
            except NotFiniteError as error:
                place = f"pass {number}, tile {i + 1} of {len(windows)}"
                raise NotFiniteError(f"{error} (It was in {place}.)") from error
            if add:
                add(i, sr)
            else:
                crop(result.movedim(-1, 1), window).copy_(sr)
            show(f"{title}; {i + 1} done{time_left(started, i + 1, len(windows))}")
            bar.update_absolute(i + 1)
        real = f"{original.shape[2]} x {original.shape[1]} pixels of the picture"
        size = f"{layout.width} x {layout.height}"
        true = f"{real} in {size}, {sharpener.describe_agreement()}"
        said = join_lines(f"{title}; {true}", *take_notices())
        # In place: the whole result may be half of the machine's memory.
        return io.NodeOutput(result.clamp_(0, 1), said)


class Sharpener:
    """Upscales one tile at a time; after an out-of-memory error it halves the tile size."""

    def __init__(
        self,
        picture: Tensor,
        layout: TileLayout,
        chosen: dict,
        color_fix: str,
        consistency: float,
        noise: NoiseField,
    ):
        self.picture = picture
        self.layout = layout
        self.chosen = chosen
        self.color_fix = color_fix
        self.consistency = consistency
        self.noise = noise
        self.limit = inf
        """Side of the largest tile that may fit into memory."""
        self.encoded: dict[str, list] = {}
        self.squares: list[float] = []
        self.ring = 0
        """Result pixels around a tile that are computed with it and cut away at the end."""
        if chosen["backbone"] == UPSCALE_MODEL:
            self.upscaler = self._make_upscaler()

    def _make_upscaler(self) -> Upscaler:
        factor = Fraction(self.layout.width, self.picture.shape[-1])
        tile = max(self.layout.tile_height, self.layout.tile_width)
        multiple = grid_multiple(factor, tile)
        upscale_model = take_colour(self.chosen["upscale_model"])
        reach, is_periodic = reach_of(upscale_model)
        is_tiled = len(self.layout.windows()) > 1
        margin = min(reach, floor(tile / factor / 4)) if is_tiled else reach
        corrects = self.color_fix == "wavelet" or self.consistency > 0
        if corrects and self.color_fix in LOCAL_COLOR:
            self.ring = ceil(COLOR_RING / multiple) * multiple
            margin = max(margin, ceil(self.ring / factor))
        if margin < reach:
            # plan_tiles lowers a tile to such a multiple; the widget has steps of 16.
            enough = ceil(4 * reach * factor) + multiple
            notice(
                f"The upscale model looks at {reach} pixels around a tile, and tiles of {tile} pixels leave "
                f"it {margin}: lines may show. Raise tile to {ceil(enough / 16) * 16}"
            )
        return Upscaler(upscale_model, margin, is_periodic)

    def encode(self, texts: list[str]) -> None:
        """All texts before the first tile, so that the text encoder is loaded once."""
        if self.chosen["backbone"] == UPSCALE_MODEL:
            return
        if self.chosen["backbone"] == ANY_CHECKPOINT:
            texts = [*texts, self.chosen["negative"]]
        for text in dict.fromkeys(texts):
            self.encoded[text] = self._encode(text)

    def _encode(self, text: str) -> list:
        if self.chosen["backbone"] == ONE_STEP:
            return CoZEncodePrompt.execute(self.chosen["clip"], text)[0]
        require_clip(self.chosen["clip"])
        return CLIPTextEncode().encode(self.chosen["clip"], whole_characters(text))[0]

    def sharpen(self, window: Window, text: str, seed: int) -> Tensor:
        """The enlarged, sharpened window, (1, 3, h, w)."""
        if self.chosen["backbone"] == UPSCALE_MODEL:
            # Its Upscaler makes smaller parts by itself after an out-of-memory error.
            return self._sharpen(window, text, seed)
        if max(window.height, window.width) <= self.limit:
            try:
                return self._sharpen(window, text, seed)
            except Exception as error:
                comfy.model_management.raise_non_oom(error)
                smaller = int(max(window.height, window.width)) // 2
                if smaller < MIN_PART_RESULT_PIXELS:
                    raise
            self.limit = smaller
            notice(f"Out of memory: from here on with tiles of {smaller} pixels")
            comfy.model_management.soft_empty_cache()
        height, width = int(window.height), int(window.width)
        # At the usual 4x, multiples of 4 are pixels of the picture: see plan_tiles.
        inner = tile_layout(height, width, int(self.limit), int(self.limit) // 4, 4)
        out = torch.zeros(1, height, width, 3, device=self.picture.device)
        blend = TileBlend(inner, out)
        for i, part in enumerate(inner.windows()):
            moved = part._replace(x=part.x + window.x, y=part.y + window.y)
            blend.add(i, self.sharpen(moved, text, seed))
        return out.movedim(-1, 1)

    def _sharpen(self, window: Window, text: str, seed: int) -> Tensor:
        ring = self.ring
        x, y, width, height = window
        view = Window(x - ring, y - ring, width + 2 * ring, height + 2 * ring)
        zoomed = None
        if self.color_fix != "none" or self.chosen["backbone"] != UPSCALE_MODEL:
            zoomed = to_image(tile_view(self.picture, self.layout, view))
        with apart():
            image = self._step(zoomed, view, text, seed)
            if self.color_fix != "none":
                image = CoZColorFix.execute(image, zoomed, self.color_fix)[0]
        sr = to_bchw(image).contiguous()
        if self.consistency:
            sr = back_project(sr, self._source(view), self.consistency).clamp(0, 1)
        sr = crop(sr, Window(ring, ring, width, height))
        self.squares.append(10 ** (-agreement(sr, self._source(window)) / 10))
        return sr

    def _source(self, window: Window) -> Tensor:
        """What a window of the result was made from, in the picture's own pixels."""
        box = tile_source(self.picture, self.layout, window)
        sides = max(1, round(box.height)), max(1, round(box.width))
        return resize_mirrored(self.picture, *sides, box)

    def _step(self, zoomed: Tensor | None, window: Window, text: str, seed: int) -> Tensor:
        chosen = self.chosen
        if chosen["backbone"] == UPSCALE_MODEL:
            return self._upscale(window)
        view = chosen["model"], chosen["vae"], self.encoded[text]
        if chosen["backbone"] == ONE_STEP:
            return CoZSRStep.execute(*view, zoomed, chosen["latent_shift"])[0]
        return refined(
            *view,
            self.encoded[chosen["negative"]],
            to_bchw(zoomed),
            chosen["sampling_steps"],
            *(chosen[key] for key in ("cfg", "sampler_name", "scheduler", "denoise")),
            seed,
            lambda latent: self.noise.window(
                latent, window.x, window.y, chosen["vae"].spacial_compression_encode()
            ),
        )[0]

    def _upscale(self, window: Window) -> Tensor:
        x, y, width, height = tile_source(self.picture, self.layout, window)
        left, top, right, bottom = floor(x), floor(y), ceil(x + width), ceil(y + height)
        ring = ceil(self.ring * self.picture.shape[-1] / self.layout.width)
        scale = self.chosen["upscale_model"].scale
        is_exact = (left, top) == (x, y) and (width * scale, height * scale) == window[2:]
        if not is_exact:
            # The model's result is resized, which reads a little beyond the window.
            left, top = left - RESIZE_SUPPORT, top - RESIZE_SUPPORT
            right, bottom = right + RESIZE_SUPPORT, bottom + RESIZE_SUPPORT
            ring += RESIZE_SUPPORT
        pixels = Window(left, top, right - left, bottom - top)
        sr = self.upscaler(self.picture, pixels, ring)
        fx, fy = sr.shape[-1] / pixels.width, sr.shape[-2] / pixels.height
        box = Window((x - left) * fx, (y - top) * fy, width * fx, height * fy)
        side = int(window.height), int(window.width)
        return to_image(resize(sr, *side, self.chosen["resampling"], box))

    def tell_size(self) -> None:
        """Say so where the tiles are too small for the checkpoint: once, not for each."""
        sides = self.layout.tile_height, self.layout.tile_width
        if note := size_note(self.chosen["model"], *sides, "a tile", "tile"):
            notice(note)

    def describe_agreement(self) -> str:
        mean = sum(self.squares) / len(self.squares)
        return describe_agreement(-10 * log10(mean) if mean else inf)
