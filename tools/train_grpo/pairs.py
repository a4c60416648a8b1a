"""Make pairs of a wider and a zoomed view, as the steps of a chain see them."""

import pickle
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from coz.geometry import FrameMode, Target, Window, place_first_frame, plan_steps
from coz.render.pillow import from_pillow, to_pillow
from coz.text.conversation import MULTISCALE_INSTRUCTION
from tools.image_file import encode

SCALE = 4.0
"""Scale of one step, as in the paper."""

CROPS = "crops"
BUILT_IN = "built-in"
BUILT_IN_MODEL = Path(__file__).parents[2] / "models" / "coz_lite_x4_texture.safetensors"

JPEG_QUALITY = 95
"""JPEG quality of the views in the data set: a tenth of the size of PNG."""

TARGET_RANGE = 0.9
"""Targets lie in this middle part of a photograph's width and height."""


class PairOptions(NamedTuple):
    """How pairs are made from a photograph."""

    backbone: str = BUILT_IN
    """What sharpens a step: "built-in", the file of an upscale model, or "crops" (nothing: all views are
    cropped from the photograph)."""
    steps: int = 4
    """Steps of a chain, up to the magnification SCALE ** steps."""
    targets: int = 2
    """Chains per photograph."""
    size: int = 512
    """Side of a view in pixels."""
    frame: FrameMode = "whole picture square"
    seed: int = 0


def make_conversation() -> list[dict]:
    """Return the conversation of the prompt extractor: the paper's instruction, then the two views."""
    text = {"type": "text", "text": MULTISCALE_INSTRUCTION}
    image = {"type": "image", "text": None}
    return [{"role": "system", "content": [text]}, {"role": "user", "content": [image, image]}]


def make_row(name: str, wide: bytes, zoomed: bytes, factor: float, origin: dict, **marks) -> dict:
    return {
        "prompt": make_conversation(),
        "images": [{"bytes": wide, "path": None}, {"bytes": zoomed, "path": None}],
        "pair": name,
        "factor": float(factor),
        "origin": {"file": "", "backbone": "", "window": [], "target": [], "seed": 0} | origin,
        "good": marks.get("good", []),
        "bad": marks.get("bad", []),
    }


def encode_view(view: Image.Image) -> bytes:
    return encode(view, "jpeg", quality=JPEG_QUALITY, subsampling=0)


def make_pairs(photo: Image.Image, name: str, options: PairOptions) -> Iterator[dict]:
    """Make the rows of a photograph: one for each step of each chain."""
    draw = random.Random(f"{options.seed}/{name}")  # independent of order and process
    for chain in range(options.targets):
        target = Target(*(0.5 + TARGET_RANGE * (draw.random() - 0.5) for _ in "xy"))
        first = place_first_frame(photo.height, photo.width, options.size, options.frame, target)
        plan = plan_steps(first.height, first.width, SCALE, options.steps, first.target)
        # The first frame is resized with Lanczos, as in the paper; the steps are bicubic.
        side = first.width, first.height
        frame = resize_window(photo, first.window, side, Image.Resampling.LANCZOS)
        window, wide_file = first.window, encode_view(frame)
        for step, (inner, _) in enumerate(plan, 1):
            window = _nest_window(window, inner, first.width, first.height)
            if options.backbone == CROPS:
                zoomed = resize_window(photo, window, frame.size)
            else:
                # As in the nodes: crop first, so that pixels outside the window do not blend into its edges.
                crop = frame.crop(_to_box(inner))
                zoomed = crop.resize(frame.size, Image.Resampling.BICUBIC)
            zoomed_file = encode_view(zoomed)
            origin = {
                "file": name,
                "backbone": Path(options.backbone).name,
                "window": list(window),
                "target": list(target),
                "seed": options.seed,
            }
            yield make_row(f"{name}#{chain}.{step}", wide_file, zoomed_file, SCALE**step, origin)
            if step == options.steps:
                break
            if options.backbone == CROPS:
                wide_file = zoomed_file
            else:
                frame = load_upscaler(options.backbone)(crop).resize(
                    frame.size, Image.Resampling.BICUBIC
                )
                wide_file = encode_view(frame)


def resize_window(
    picture: Image.Image,
    window: Window,
    size: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Resize a window, which may have fractional bounds, to (width, height)."""
    left, top, right, bottom = _to_box(window)
    # Rounding errors may put a bound slightly outside the image, which Pillow refuses.
    box = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    return picture.resize(size, resampling, box, reducing_gap=3.0)


def _to_box(window: Window) -> tuple[float, float, float, float]:
    return window.x, window.y, window.x + window.width, window.y + window.height


def _nest_window(outer: Window, inner: Window, width: int, height: int) -> Window:
    """Convert ``inner``, a window in a frame that shows ``outer``, to a window in the image of ``outer``."""
    x, y = outer.width / width, outer.height / height
    return Window(outer.x + inner.x * x, outer.y + inner.y * y, inner.width * x, inner.height * y)


@cache
def load_upscaler(backbone: str) -> Callable[[Image.Image], Image.Image]:
    """Load the built-in upscale model or that of a file.

    Raises:
        ValueError: If the file is no upscale model for RGB images.
    """
    import torch
    from spandrel import ImageModelDescriptor, ModelLoader, UnsupportedModelError

    path = BUILT_IN_MODEL if backbone == BUILT_IN else Path(backbone)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        model = ModelLoader(device).load_from_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"backbone {path} does not exist") from error
    except (
        UnsupportedModelError,
        pickle.UnpicklingError,
        ValueError,
        RuntimeError,
        KeyError,
        OSError,
    ) as error:
        raise ValueError(f"backbone {path} is not an upscale model: {error}") from error
    if not isinstance(model, ImageModelDescriptor) or model.input_channels != 3:
        raise ValueError(f"backbone {path} does not upscale RGB images")

    @torch.inference_mode()
    def enlarge(crop: Image.Image) -> Image.Image:
        return to_pillow(model(from_pillow(crop).to(device)))

    return enlarge
