"""The record of a zoom: every frame, the window it was made from, and its prompt."""

import hashlib
import json
import math
from dataclasses import dataclass, replace

from torch import Tensor

from ..geometry import Target, Window
from .schema import RECORD_VERSION, SEED_BITS, read_record

__version__ = "0.1.0"
"""Version of the node pack."""


def derive_step_seed(seed: int, step: int) -> int:
    """Derive the seed of step ``step`` (1, 2, ...). It does not depend on the number of steps."""
    digest = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> (64 - SEED_BITS)


@dataclass(frozen=True, eq=False)
class ZoomChain:
    """A chain of zooms from the source image down to the deepest frame.

    Layer 0 is the source, layer 1 the first frame x_0, layer i + 1 the frame x_i.
    """

    scale: float
    """Requested scale of each step. The exact factors follow from the windows: see ``compute_magnification``."""
    frames: tuple[Tensor, ...]
    """One for each layer: (1, 3, H, W) float32 in [0, 1]. All but the source have the same size."""
    windows: tuple[Window, ...]
    """``windows[k]`` is the region that layer k + 1 shows, in pixels of layer k."""
    prompts: tuple[str, ...]
    """The text of each step; "" is an empty prompt."""
    seeds: tuple[int, ...]
    target: Target
    """The point that is zoomed into, as fractions of the source."""
    models: tuple[str, ...] = ()
    """File names of the models that made the chain."""
    agreements: tuple[float, ...] = ()
    """PSNR in dB of each downscaled result with the crop that the step enlarged, limited to 99. NaN
    where it was not measured; empty in older records."""
    invented: tuple[float, ...] = ()
    """Share of each result's energy (variance; see ``measure_invented_energy``), 0..1, that the enlarged
    crop does not hold. NaN where it was not measured; empty in older records."""
    denoises: tuple[float, ...] = ()
    """The ``denoise`` of each step, 0..1, as in KSampler: 0 keeps the view as it is, 1 samples a new one.
    NaN for a step that was made without this value; empty if no step has one."""
    color_profile: str = ""
    """Name of the color profile in the source's file, which was not applied; "" if it is sRGB or
    unknown."""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together."""
        steps = len(self.frames) - 2
        if steps < 0:
            raise ValueError("a chain has at least a source and a first frame")
        for name, length, expected in (
            ("windows", len(self.windows), steps + 1),
            ("prompts", len(self.prompts), steps),
            ("seeds", len(self.seeds), steps),
        ):
            if length != expected:
                raise ValueError(f"a chain of {steps} steps has {expected} {name}, got {length}")
        for name, figures in (
            ("agreements", self.agreements),
            ("invented", self.invented),
            ("denoises", self.denoises),
        ):
            if len(figures) not in {0, steps}:
                raise ValueError(
                    f"a chain of {steps} steps has {steps} {name} or none, got {len(figures)}"
                )

    @property
    def steps(self) -> int:
        """Number of steps: the frames after x_0."""
        return len(self.frames) - 2

    def find_window_in(self, layer: int, ancestor: int) -> Window:
        """Compute the region that ``layer`` shows, in pixels of ``ancestor``, an earlier layer or itself.

        Raises:
            ValueError: If ``ancestor`` comes after ``layer``, or one of them does not exist.
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

    def find_real_window(self, layer: int) -> Window:
        """Compute the region that ``layer`` shows, in pixels of the source.

        If x_0 was downscaled, the region of layers 2 and deeper is in pixels of x_0, because no more of the
        source reached them.

        Raises:
            ValueError: If the layer does not exist.
        """
        window = self.find_window_in(layer, 0)
        if layer <= 1:
            return window
        return min(window, self.find_window_in(layer, 1), key=lambda w: w.width * w.height)

    def find_deepest_center(self) -> Target:
        """Compute the center of the deepest frame, as fractions of the source."""
        x, y, w, h = self.find_window_in(len(self.frames) - 1, 0)
        height, width = self.frames[0].shape[-2:]
        return Target((x + w / 2) / width, (y + h / 2) / height)

    def compute_magnification(self, layer: int) -> tuple[float, float]:
        """Return the (horizontal, vertical) factor by which a layer enlarges the first frame."""
        x, y = self._compute_density(layer)
        first_x, first_y = self._compute_density(1)
        return x / first_x, y / first_y

    def _compute_density(self, layer: int) -> tuple[float, float]:
        """Return the number of the layer's pixels per source pixel, along x and y."""
        window = self.find_window_in(layer, 0)
        height, width = self.frames[layer].shape[-2:]
        return width / window.width, height / window.height

    def _comfy_cache_tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that ComfyUI's RAM-pressure cache (about 0.34 and newer) counts.

        Without this method a chain of gigabytes counts as almost nothing and is freed last.
        """
        return self.frames

    def to_json(self) -> str:
        """Write everything but the pixels. Frames become [width, height], windows [x, y, w, h].

        ``real_pixels`` is the [width, height] of each frame's ``find_real_window``, from the first frame
        on. It is only for people who read the file; ``from_json`` ignores it.
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
                    list(self.find_real_window(layer)[2:]) for layer in range(1, len(self.frames))
                ],
                "agreements": _replace_nan(self.agreements),
                "invented": _replace_nan(self.invented),
                "target": list(self.target),
                "models": list(self.models),
                "pack": __version__,
            }
            | ({"denoises": _replace_nan(self.denoises)} if self.denoises else {})
            | ({"color_profile": self.color_profile} if self.color_profile else {}),
            ensure_ascii=False,
        )

    @classmethod
    def from_json(cls, text: str, frames: tuple[Tensor, ...]) -> "ZoomChain":
        """Read the chain that ``to_json`` wrote, given its frames.

        Raises:
            ValueError: As ``read_record``, or if the frames have other sizes than the record states.
        """
        record = read_record(text)
        sizes = tuple((f.shape[-1], f.shape[-2]) for f in frames)
        if sizes != record.sizes:
            raise ValueError(f"the record has frames of sizes {record.sizes}, got {sizes}")
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
            denoises=record.denoises,
            color_profile=record.color_profile,
        )
        # The oldest records have no target; the center of the deepest frame is near it.
        return chain if record.target else replace(chain, target=chain.find_deepest_center())


def _replace_nan(figures: tuple[float, ...]) -> list[float | None]:
    """Replace NaN, which JSON does not have, by None."""
    return [None if math.isnan(figure) else figure for figure in figures]
