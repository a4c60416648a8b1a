"""Upscale windows of an image with ComfyUI's own node, such that the model sees the pixels around them.

A window that is too large is split into parts. A region is a part with the pixels around it: what the
model gets in one call.
"""

import logging
from collections.abc import Sequence
from math import ceil
from weakref import WeakKeyDictionary

import comfy.model_management
import torch
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel
from spandrel import ImageModelDescriptor
from torch import Tensor

from ...coz.geometry import Window
from ...coz.resample import crop_mirrored
from ...coz.tiles.grid import join_grid, split_grid
from ...coz.tiles.layout import split_side
from ...coz.tiles.reach import MIN_REACH_PIXELS, Reach, measure_reach
from .images import require_finite, to_bchw, to_image
from .messages import give_notice, hide_called_progress
from .untiled_model import RegionOutOfMemoryError, UntiledModel
from .upscale_model import LumaModel, SelfEnsembled, name_model

MAX_REGION_PIXELS = 512
"""Maximum side of a region in input pixels: ComfyUI splits larger images into tiles without margins."""

REGION_GRID_PIXELS = 32
"""Grid in input pixels on which regions begin if a model's result depends on where they begin: a
multiple of all usual attention windows and strides."""

DEFAULT_REACH = Reach(16, False)
"""The reach that is assumed for a model that cannot be measured."""

MIN_PART_RESULT_PIXELS = 128
"""Minimum side of a part in result pixels: smaller parts show a model too little."""

OUT_OF_MEMORY_HINT = (
    "Even the smallest part of the image does not fit into memory: close other programs that use the GPU, "
    "choose a smaller upscale model, or start ComfyUI with --cpu"
)

_reaches: WeakKeyDictionary[object, Reach] = WeakKeyDictionary()


def get_reach(upscale_model) -> Reach:
    """Return how far a model looks around a pixel, measured once for each model.

    A self-ensemble looks as far as the model in it.
    """
    if isinstance(upscale_model, SelfEnsembled):
        upscale_model = upscale_model.wrapped
    # A gray model gets a new wrapper in each run, so use the model inside as the key.
    loaded = upscale_model.wrapped if isinstance(upscale_model, LumaModel) else upscale_model
    if loaded not in _reaches:
        try:
            with hide_called_progress():
                whole = UntiledModel(upscale_model)
                _reaches[loaded] = measure_reach(lambda lq: _enlarge_bchw(whole, lq))
        except comfy.model_management.InterruptProcessingException:
            raise
        except Exception as error:  # a third-party network may raise any error
            if isinstance(error, RegionOutOfMemoryError) or comfy.model_management.is_oom(error):
                comfy.model_management.soft_empty_cache()
                log_assumed_reach("out of memory")
                return DEFAULT_REACH  # only for this run: the next one may have enough memory
            if isinstance(error, getattr(torch, "AcceleratorError", ())):  # since torch 2.8
                raise  # the GPU failed, not the model
            log_assumed_reach(error)
            _reaches[loaded] = DEFAULT_REACH
    return _reaches[loaded]


def log_assumed_reach(reason: object) -> None:
    logging.getLogger("chain_of_zoom").warning(
        f"Could not measure how many pixels around a tile affect the upscale model ({reason}). It gets "
        f"{DEFAULT_REACH.pixels} pixels around each tile"
    )


class WindowUpscaler:
    """Upscales windows of images with their surroundings, in smaller parts after an out-of-memory error."""

    def __init__(self, upscale_model, margin: int, is_periodic: bool = False):
        self.upscale_model = UntiledModel(upscale_model)
        self.margin = margin
        """Input pixels around each part."""
        self.period = REGION_GRID_PIXELS if is_periodic else 1
        """Regions begin and end at multiples of this number of input pixels."""
        self.max_region = MAX_REGION_PIXELS
        """Maximum side of a region in input pixels, margins included."""
        self.max_windows = MAX_REGION_PIXELS**2
        """Maximum number of windows that are upscaled at once."""

    def __call__(self, image: Tensor, window: Window, ring: int = 0) -> Tensor:
        """Return the upscaled window, (B, 3, h * s, w * s) for the model's own factor s.

        Args:
            image: (B, 3, H, W).
            window: In whole pixels of the image; may reach beyond it.
            ring: Number of pixels at each edge of the window that count as part of the margin.
        """
        while True:
            try:
                return self._enlarge(image, window, ring)
            except Exception as error:
                error = _require_out_of_memory(error)
                if not self._shrink(window, ring):
                    raise type(error)(f"{error}\n{OUT_OF_MEMORY_HINT}") from None
            # After the except block the error is gone, and the tensors of the failed attempt with it.
            comfy.model_management.soft_empty_cache()

    def upscale_all(self, image: Tensor, windows: Sequence[Window], ring: int = 0) -> list[Tensor]:
        """Upscale windows of one image as ``__call__`` does, as many at once as fit into a region.

        Args:
            image: (1, 3, H, W).
            windows: As in ``__call__``.
            ring: As in ``__call__``.

        Returns:
            The upscaled windows, each (1, 3, h * s, w * s). Those that are upscaled at once differ from
            the result of ``__call__`` by the rounding of a batch.
        """
        done: list[Tensor] = []
        while len(done) < len(windows):
            rest = windows[len(done) :]
            rows, columns = self._choose_grid(rest[0], ring, min(len(rest), self.max_windows))
            group = rest[: rows * columns]
            if len(group) == 1 or len({window[2:] for window in group}) > 1:
                done.append(self(image, rest[0], ring))
                continue
            try:
                done += self._enlarge_grid(image, group, ring, rows, columns).split(1)
                continue
            except Exception as error:
                _require_out_of_memory(error)
            self.max_windows = len(group) // 2
            comfy.model_management.soft_empty_cache()
        return done

    def choose_group_size(self, window: Window, ring: int) -> int:
        """Return how many windows of this size ``upscale_all`` upscales at once."""
        rows, columns = self._choose_grid(window, ring, self.max_windows)
        return rows * columns

    def _choose_grid(self, window: Window, ring: int, count: int) -> tuple[int, int]:
        """Return rows and columns of a grid of at most ``count`` windows that is no larger than a region."""
        height, width = self._measure_region(window, ring)
        is_model_known = isinstance(self.upscale_model.upscale_model, ImageModelDescriptor)
        if self.period > 1 or not is_model_known or max(height, width) > self.max_region:
            return 1, 1
        columns = min(count, self.max_region // width)
        return min(count // columns, self.max_region // height), columns

    def _measure_region(self, window: Window, ring: int) -> tuple[int, int]:
        """Return height and width of a window with its margin, in input pixels."""
        margin = 2 * max(0, self.margin - ring)
        return int(window.height) + margin, int(window.width) + margin

    def _enlarge_grid(
        self, image: Tensor, windows: Sequence[Window], ring: int, rows: int, columns: int
    ) -> Tensor:
        margin = max(0, self.margin - ring)
        height, width = self._measure_region(windows[0], ring)
        places = [Window(int(w.x) - margin, int(w.y) - margin, width, height) for w in windows]
        regions = torch.cat([crop_mirrored(image, place) for place in places])
        comfy.model_management.throw_exception_if_processing_interrupted()
        self.upscale_model.grid = rows, columns
        try:
            sr = _enlarge_bchw(self.upscale_model, join_grid(regions, rows, columns))
        finally:
            self.upscale_model.grid = 1, 1
        sr = split_grid(sr, rows, columns)
        cut = margin * sr.shape[-1] // width
        return sr[..., cut : sr.shape[-2] - cut, cut : sr.shape[-1] - cut]

    def _enlarge(self, image: Tensor, window: Window, ring: int) -> Tensor:
        rows = self._split_side(window.y, window.height, ring)
        columns = self._split_side(window.x, window.width, ring)
        out = None
        for top, bottom, region_top, region_bottom in rows:
            for left, right, region_left, region_right in columns:
                comfy.model_management.throw_exception_if_processing_interrupted()
                size = region_right - region_left, region_bottom - region_top
                region = Window(region_left, region_top, *size)
                sr = _enlarge_bchw(self.upscale_model, crop_mirrored(image, region))
                scale = sr.shape[-1] // int(region.width)
                y, x = (top - region_top) * scale, (left - region_left) * scale
                height, width = (bottom - top) * scale, (right - left) * scale
                part = sr[..., y : y + height, x : x + width]
                if len(rows) == len(columns) == 1:
                    return part
                if out is None:
                    sides = int(window.height) * scale, int(window.width) * scale
                    out = sr.new_empty((*sr.shape[:2], *sides))
                y, x = (top - int(window.y)) * scale, (left - int(window.x)) * scale
                out[..., y : y + height, x : x + width] = part
        return out

    def _split_side(
        self, start: float, length: float, ring: int
    ) -> list[tuple[int, int, int, int]]:
        """Split one side of a window: return (start, end, region start, region end) of each part."""
        start, length = int(start), int(length)
        margin = max(0, self.margin - ring)  # around the window; its ring is already margin
        first, last = start - margin, start + length + margin
        for count in range(1, length + 1):
            parts = [
                (
                    start + begin,
                    start + end,
                    max(first, start + begin - self.margin) // self.period * self.period,
                    # Self-Ensemble also flips regions, so their ends must lie on the grid too.
                    -(-min(last, start + end + self.margin) // self.period) * self.period,
                )
                for begin, end in split_side(length, ceil(length / count))
            ]
            if max(end - begin for *_, begin, end in parts) <= self.max_region:
                break
        return parts

    def _shrink(self, window: Window, ring: int) -> bool:
        """Make regions smaller after an out-of-memory error; return False if they cannot be smaller."""
        sides = [
            end - begin
            for start, length in ((window.y, window.height), (window.x, window.width))
            for *_, begin, end in self._split_side(start, length, ring)
        ]
        min_part = ceil(MIN_PART_RESULT_PIXELS / self.upscale_model.scale)
        min_region = min_part + 2 * (self.margin + self.period - 1)
        if self.max_region > min_region:
            self.max_region = max(min_region, min(self.max_region, max(sides)) // 2)
            if max(sides) > self.max_region:
                give_notice(
                    "Out of memory: from here on the model enlarges at most "
                    f"{self.max_region} x {self.max_region} pixels at once"
                )
            return True
        if self.margin > MIN_REACH_PIXELS:
            self.margin = max(MIN_REACH_PIXELS, self.margin // 2)
            self.max_region = min_part + 2 * (self.margin + self.period - 1)
            give_notice(
                f"Out of memory: from here on the model sees only {self.margin} pixels around a tile, fewer "
                "than it needs, so lines may show at the edges of tiles. Close other programs that use the "
                "memory, or choose a smaller model"
            )
            return True
        return False


def _require_out_of_memory(error: Exception) -> Exception:
    """Return the model's own out-of-memory error; raise every other error."""
    if isinstance(error, RegionOutOfMemoryError):
        error = error.__cause__
    comfy.model_management.raise_non_oom(error)
    return error


def _enlarge_bchw(upscale_model, lq: Tensor) -> Tensor:
    """Upscale (B, 3, h, w) with ComfyUI's Upscale Image (using Model)."""
    # In the memory layout of an IMAGE, convolutions on the CPU take three quarters of the time.
    image = to_image(lq).contiguous()
    return enlarge(upscale_model, image)


def enlarge(upscale_model, image: Tensor) -> Tensor:
    """Upscale an IMAGE with ComfyUI's Upscale Image (using Model); return it as (B, 3, h, w)."""
    sr = ImageUpscaleWithModel.execute(upscale_model, image)[0]
    require_finite(
        sr, lambda: name_model(upscale_model), "Choose another model, or download its file again"
    )
    return to_bchw(sr, "the model's result")
