"""The record of a chain: every frame, where it was cut from, what it was told."""

import hashlib
import json
import math
from dataclasses import dataclass, replace

from torch import Tensor

from ..geometry import Target, Window
from .schema import RECORD_VERSION, SEED_BITS, read_record

__version__ = "0.1.0"
"""Of the pack."""


def derive_step_seed(seed: int, step: int) -> int:
    """The seed of step ``step`` (1, 2, ...): the same whatever the number of steps."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


@dataclass(frozen=True, eq=False)
class ZoomChain:
    """A chain of zooms from the whole source picture down to the deepest frame.

    Layer 0 is the source, layer 1 the first frame x_0, layer i + 1 the frame x_i.
    """

    scale: float
    """Factor asked of each step. The true ones come from the windows: see ``magnification``."""
    frames: tuple[Tensor, ...]
    """One a layer: (1, 3, H, W) float32 in [0, 1]. All but the source have the same size."""
    windows: tuple[Window, ...]
    """``windows[k]`` is layer k + 1 in the pixels of layer k."""
    prompts: tuple[str, ...]
    """What step i was told; "" is an empty prompt."""
    seeds: tuple[int, ...]
    target: Target
    """The point that every step aims at, as fractions of the source."""
    models: tuple[str, ...] = ()
    """File names of the models that made it."""
    agreements: tuple[float, ...] = ()
    """How well step i repeats the window that it enlarged: PSNR in dB, at most 99, also where they
    are equal. NaN where it was not measured; none at all in older records."""
    invented: tuple[float, ...] = ()
    """The share of step i's energy, 0..1, that is not in that window enlarged; as ``agreements``."""
    color_profile: str = ""
    """Name of the colour profile in the source's file, which was not applied; "" where it is sRGB or
    not known."""

    def __post_init__(self) -> None:
        """Refuse a record whose parts do not fit together."""
        steps = len(self.frames) - 2
        if steps < 0:
            raise ValueError("a chain holds at least its source and its first frame")
        for name, length, expected in (
            ("windows", len(self.windows), steps + 1),
            ("prompts", len(self.prompts), steps),
            ("seeds", len(self.seeds), steps),
        ):
            if length != expected:
                raise ValueError(f"a chain of {steps} steps has {expected} {name}, got {length}")
        for name, figures in (("agreements", self.agreements), ("invented", self.invented)):
            if len(figures) not in {0, steps}:
                raise ValueError(
                    f"a chain of {steps} steps has {steps} {name} or none, got {len(figures)}"
                )

    @property
    def steps(self) -> int:
        """Number of zooms: the frames after x_0."""
        return len(self.frames) - 2

    def window_in(self, layer: int, ancestor: int) -> Window:
        """The region that ``layer`` shows, in the pixels of a layer at or above it.

        Raises:
            ValueError: If ``ancestor`` lies below ``layer`` or either does not exist.
        """
        if not 0 <= ancestor <= layer < len(self.frames):
            raise ValueError(
                f"ancestor must be 0 to layer and layer at most {len(self.frames) - 1}, "
                f"got ancestor {ancestor} and layer {layer}"
            )
        height, width = self.frames[layer].shape[-2:]
        region = Window(0.0, 0.0, float(width), float(height))
        for k in range(layer - 1, ancestor - 1, -1):
            height, width = self.frames[k + 1].shape[-2:]
            window = self.windows[k]
            fx, fy = window.width / width, window.height / height
            region = Window(
                window.x + region.x * fx,
                window.y + region.y * fy,
                region.width * fx,
                region.height * fy,
            )
        return region

    def real_window(self, layer: int) -> Window:
        """The region that ``layer`` shows, in real pixels: those of the source.

        The steps see only the first frame. Where that was downscaled, its own pixels are the real
        ones of the frames below it, each of them the mean of several of the source's.

        Raises:
            ValueError: If the layer does not exist.
        """
        window = self.window_in(layer, 0)
        if layer <= 1:
            return window
        return min(window, self.window_in(layer, 1), key=lambda w: w.width * w.height)

    def middle(self) -> Target:
        """Of the deepest frame, as fractions of the source."""
        x, y, w, h = self.window_in(len(self.frames) - 1, 0)
        height, width = self.frames[0].shape[-2:]
        return Target((x + w / 2) / width, (y + h / 2) / height)

    def magnification(self, layer: int) -> tuple[float, float]:
        """(horizontal, vertical) factor by which a layer enlarges the first frame."""
        x, y = self._density(layer)
        first_x, first_y = self._density(1)
        return x / first_x, y / first_y

    def _density(self, layer: int) -> tuple[float, float]:
        """Pixels of the layer to one pixel of the source, along x and y."""
        window = self.window_in(layer, 0)
        height, width = self.frames[layer].shape[-2:]
        return width / window.width, height / window.height

    def _comfy_cache_tensors(self) -> tuple[Tensor, ...]:
        """The tensors that ComfyUI's RAM-pressure cache (about 0.34 and newer) counts for a chain.

        Without it a chain of gigabytes counts as nearly nothing and is freed last.
        """
        return self.frames

    def to_json(self) -> str:
        """Everything but the pixels. Frames appear as [width, height], windows as [x, y, w, h].

        ``real_pixels`` is the [width, height] of each frame's ``real_window``, from the first frame
        on. It is for the reader: ``from_json`` counts it anew from the windows.
        """
        return json.dumps(
            {
                "version": RECORD_VERSION,
                "scale": self.scale,
                "steps": self.steps,
                "frames": [[f.shape[-1], f.shape[-2]] for f in self.frames],
                "windows": [[float(v) for v in window] for window in self.windows],
                "prompts": list(self.prompts),
                "seeds": list(self.seeds),
                "real_pixels": [
                    list(self.real_window(layer)[2:]) for layer in range(1, len(self.frames))
                ],
                "agreements": _replace_nan(self.agreements),
                "invented": _replace_nan(self.invented),
                "target": list(self.target),
                "models": list(self.models),
                "pack": __version__,
            }
            | ({"color_profile": self.color_profile} if self.color_profile else {}),
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str, frames: tuple[Tensor, ...]) -> "ZoomChain":
        """The chain that ``to_json`` described, given its frames again.

        Raises:
            ValueError: If the text is no chain, is of a newer version, holds a value that cannot be,
                or the frames are of other sizes than it states.
        """
        record = read_record(text)
        sizes = tuple((f.shape[-1], f.shape[-2]) for f in frames)
        if sizes != record.sizes:
            raise ValueError(f"the record is of frames {record.sizes}, got {sizes}")
        chain = cls(
            scale=record.scale,
            frames=frames,
            windows=record.windows,
            prompts=record.prompts,
            seeds=record.seeds,
            target=record.target or Target(0.5, 0.5),
            models=record.models,
            agreements=record.agreements,
            invented=record.invented,
            color_profile=record.color_profile,
        )
        # The first records named no target; the middle of the deepest window is near it.
        return chain if record.target else replace(chain, target=chain.middle())


def _replace_nan(figures: tuple[float, ...]) -> list[float | None]:
    """JSON has no NaN."""
    return [None if math.isnan(figure) else figure for figure in figures]
