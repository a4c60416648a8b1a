"""Upscale models that see the pixels around what they enlarge, run by the host's own node."""

import logging
from math import ceil
from weakref import WeakKeyDictionary

import comfy.model_management
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel
from torch import Tensor

from ...coz.geometry import Window
from ...coz.resample import crop_mirrored
from ...coz.tiles.layout import split_side
from ...coz.tiles.reach import MIN_REACH_PIXELS, Reach, measure_reach
from .images import require_finite, to_bchw, to_image
from .messages import apart, notice
from .upscale_model import LumaModel, SelfEnsembled, name_model

MAX_REGION = 512
"""Source pixels a side: of a larger image the host makes tiles of its own, without margins."""

PERIOD = 32
"""Source pixels: every usual attention window and stride divides it."""

DEFAULT_REACH = Reach(16, False)
"""Of a model that cannot be measured."""

MIN_PART_RESULT_PIXELS = 128
"""Result pixels of a side below which nothing is divided: smaller parts show a model too little."""

_reaches: WeakKeyDictionary[object, Reach] = WeakKeyDictionary()


def reach_of(upscale_model) -> Reach:
    """Measured once for each model; a self-ensemble reaches as far as its single model."""
    if isinstance(upscale_model, SelfEnsembled):
        upscale_model = upscale_model.single
    # A grey model is wrapped anew for each run.
    loaded = upscale_model.single if isinstance(upscale_model, LumaModel) else upscale_model
    if loaded not in _reaches:
        try:
            with apart():
                whole = WholeRegion(upscale_model)
                _reaches[loaded] = measure_reach(lambda lq: _run(whole, lq))
        except comfy.model_management.InterruptProcessingException:
            raise
        except RegionOutOfMemoryError:
            comfy.model_management.soft_empty_cache()
            warn_of_default("out of memory")
            return DEFAULT_REACH  # for this run: the next one may have the memory
        except Exception as error:  # networks of any author raise anything
            warn_of_default(error)
            _reaches[loaded] = DEFAULT_REACH
    return _reaches[loaded]


def warn_of_default(reason: object) -> None:
    logging.getLogger("chain_of_zoom").warning(
        f"How far the upscale model looks could not be measured ({reason}): it is shown "
        f"{DEFAULT_REACH.pixels} pixels around what it enlarges"
    )


class RegionOutOfMemoryError(Exception):
    """An out-of-memory error, its cause, that the host's upscale node does not handle."""


class WholeRegion:
    """An upscale model that enlarges a region as a whole or not at all.

    Out of memory, the host's node would go on with tiles that have no surroundings.
    """

    def __init__(self, upscale_model):
        self.upscale_model = upscale_model

    def __getattr__(self, name):
        return getattr(self.upscale_model, name)

    def __call__(self, *args, **kwargs) -> Tensor:
        try:
            return self.upscale_model(*args, **kwargs)
        except Exception as error:
            comfy.model_management.raise_non_oom(error)
            # Its traceback would keep what the failed attempt holds in memory.
            raise RegionOutOfMemoryError from error.with_traceback(None)


class Upscaler:
    """Enlarges windows of images with their surroundings, in smaller parts once memory ran out."""

    def __init__(self, upscale_model, margin: int, is_periodic: bool = False):
        self.upscale_model = WholeRegion(upscale_model)
        self.margin = margin
        """Source pixels around each part."""
        self.period = PERIOD if is_periodic else 1
        """Source pixels of which the place where a region begins is a multiple."""
        self.max_region = MAX_REGION
        """Source pixels of a region's side, margins included."""

    def __call__(self, image: Tensor, window: Window, ring: int = 0) -> Tensor:
        """The enlarged window, (B, 3, h * s, w * s) for the model's own factor s.

        ``window`` is in whole pixels of ``image`` (B, 3, H, W) and may reach beyond it. Its outer
        ``ring`` of pixels counts as part of the margin.
        """
        while True:
            try:
                return self._enlarge(image, window, ring)
            except Exception as error:
                if isinstance(error, RegionOutOfMemoryError):
                    error = error.__cause__
                comfy.model_management.raise_non_oom(error)
                if not self._shrink(window, ring):
                    raise error
            # Only here the error is gone, and with it what the failed attempt held in memory.
            comfy.model_management.soft_empty_cache()

    def _enlarge(self, image: Tensor, window: Window, ring: int) -> Tensor:
        rows = self._parts(window.y, window.height, ring)
        columns = self._parts(window.x, window.width, ring)
        out = None
        for top, bottom, above, below in rows:
            for left, right, before, after in columns:
                comfy.model_management.throw_exception_if_processing_interrupted()
                region = Window(before, above, after - before, below - above)
                sr = _run(self.upscale_model, crop_mirrored(image, region))
                scale = sr.shape[-1] // int(region.width)
                y, x = (top - above) * scale, (left - before) * scale
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

    def _parts(self, start: float, length: float, ring: int) -> list[tuple[int, int, int, int]]:
        """(start, end) of each part of one side of a window, and of its region."""
        start, length = int(start), int(length)
        outer = max(0, self.margin - ring)
        first, last = start - outer, start + length + outer
        for count in range(1, length + 1):
            parts = [
                (
                    start + begin,
                    start + end,
                    max(first, start + begin - self.margin) // self.period * self.period,
                    # Self-Ensemble turns regions round: its windows begin at their ends as well.
                    -(-min(last, start + end + self.margin) // self.period) * self.period,
                )
                for begin, end in split_side(length, ceil(length / count))
            ]
            if max(after - before for *_, before, after in parts) <= self.max_region:
                break
        return parts

    def _shrink(self, window: Window, ring: int) -> bool:
        """Make regions smaller after an out-of-memory error; False where they are the smallest."""
        sides = [
            after - before
            for start, length in ((window.y, window.height), (window.x, window.width))
            for *_, before, after in self._parts(start, length, ring)
        ]
        least_part = ceil(MIN_PART_RESULT_PIXELS / self.upscale_model.scale)
        least = least_part + 2 * (self.margin + self.period - 1)
        if self.max_region > least:
            self.max_region = max(least, min(self.max_region, max(sides)) // 2)
            if max(sides) > self.max_region:
                notice(
                    "Out of memory: from here on the model enlarges at most "
                    f"{self.max_region} x {self.max_region} pixels at once"
                )
            return True
        if self.margin > MIN_REACH_PIXELS:
            self.margin = max(MIN_REACH_PIXELS, self.margin // 2)
            self.max_region = least_part + 2 * (self.margin + self.period - 1)
            notice(
                f"Out of memory: from here on the model sees {self.margin} pixels around a tile, less "
                "than it needs, and may draw lines there. Close what else uses the memory, or choose "
                "a smaller model"
            )
            return True
        return False


def _run(upscale_model, lq: Tensor) -> Tensor:
    """(B, 3, h, w) through the host's Upscale Image (using Model)."""
    # As an image lies in memory, convolutions on the CPU take three quarters of the time.
    image = to_image(lq).contiguous()
    return enlarge(upscale_model, image)


def enlarge(upscale_model, image: Tensor) -> Tensor:
    """An IMAGE as (B, 3, h, w) through the host's Upscale Image (using Model)."""
    sr = ImageUpscaleWithModel.execute(upscale_model, image)[0]
    require_finite(
        sr, lambda: name_model(upscale_model), "Choose another model, or download its file again"
    )
    return to_bchw(sr, "the model's result")
