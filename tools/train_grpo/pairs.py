"""Pairs of a wider and a zoomed view, as a chain meets them."""

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
from tools.picture import encode

SCALE = 4.0
"""Of one step, as in the paper."""

CROPS = "crops"
BUILT_IN = "built-in"
BUILT_IN_MODEL = Path(__file__).parents[2] / "models" / "coz_lite_x4_texture.safetensors"

QUALITY = 95
"""Of the JPEG files in the data set, whose colours have the full resolution: a tenth of PNG's size."""

FAR = 0.9
"""Targets lie in this middle part of a photograph, each way."""


class Views(NamedTuple):
    """How pairs are made of a photograph."""

    backbone: str = BUILT_IN
    """What enlarges: "built-in", "crops" (nothing: all views are cut from the photograph itself), or
    the file of an upscale model."""
    steps: int = 4
    """The last one zooms SCALE ** steps."""
    targets: int = 2
    """Chains in one photograph."""
    size: int = 512
    """Side of a view in pixels."""
    frame: FrameMode = "whole picture square"
    seed: int = 0


def conversation() -> list[dict]:
    """What the prompt extractor is asked: the paper's instruction, then the two views alone."""
    text = {"type": "text", "text": MULTISCALE_INSTRUCTION}
    image = {"type": "image", "text": None}
    return [{"role": "system", "content": [text]}, {"role": "user", "content": [image, image]}]


def row(name: str, wide: bytes, zoomed: bytes, factor: float, origin: dict, **marks) -> dict:
    return {
        "prompt": conversation(),
        "images": [{"bytes": wide, "path": None}, {"bytes": zoomed, "path": None}],
        "pair": name,
        "factor": float(factor),
        "origin": {"file": "", "backbone": "", "window": [], "target": [], "seed": 0} | origin,
        "good": marks.get("good", []),
        "bad": marks.get("bad", []),
    }


def encoded(view: Image.Image) -> bytes:
    return encode(view, "jpeg", quality=QUALITY, subsampling=0)


def pairs(photo: Image.Image, name: str, views: Views) -> Iterator[dict]:
    """The rows of a photograph: ``views.steps`` for each of its chains."""
    draw = random.Random(f"{views.seed}/{name}")  # the same whatever is done before, and where
    for chain in range(views.targets):
        target = Target(*(0.5 + FAR * (draw.random() - 0.5) for _ in "xy"))
        first = place_first_frame(photo.height, photo.width, views.size, views.frame, target)
        plan = plan_steps(first.height, first.width, SCALE, views.steps, first.target)
        # As CoZ First Frame and the paper do; a step of the chain is bicubic.
        side = first.width, first.height
        frame = seen(photo, first.window, side, Image.Resampling.LANCZOS)
        window, wide_file = first.window, encoded(frame)
        for step, (inner, _) in enumerate(plan, 1):
            window = _inside(window, inner, first.width, first.height)
            if views.backbone == CROPS:
                zoomed = seen(photo, window, frame.size)
            else:
                # As the nodes do: what lies around the window does not weigh in at its edges.
                crop = frame.crop(_box(inner))
                zoomed = crop.resize(frame.size, Image.Resampling.BICUBIC)
            zoomed_file = encoded(zoomed)
            origin = {
                "file": name,
                "backbone": Path(views.backbone).name,
                "window": list(window),
                "target": list(target),
                "seed": views.seed,
            }
            yield row(f"{name}#{chain}.{step}", wide_file, zoomed_file, SCALE**step, origin)
            if step == views.steps:
                break
            if views.backbone == CROPS:
                wide_file = zoomed_file
            else:
                frame = upscaler(views.backbone)(crop).resize(frame.size, Image.Resampling.BICUBIC)
                wide_file = encoded(frame)


def seen(
    picture: Image.Image,
    window: Window,
    size: tuple[int, int],
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """A window, fractions allowed, brought to (width, height)."""
    left, top, right, bottom = _box(window)
    # Sums of many windows may end a rounding error outside, which Pillow refuses.
    box = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    return picture.resize(size, resampling, box, reducing_gap=3.0)


def _box(window: Window) -> tuple[float, float, float, float]:
    return window.x, window.y, window.x + window.width, window.y + window.height


def _inside(outer: Window, inner: Window, width: int, height: int) -> Window:
    """A window of a frame that shows ``outer``, in the pixels that ``outer`` is in."""
    x, y = outer.width / width, outer.height / height
    return Window(outer.x + inner.x * x, outer.y + inner.y * y, inner.width * x, inner.height * y)


@cache
def upscaler(backbone: str) -> Callable[[Image.Image], Image.Image]:
    """What enlarges a window: the built-in model or that of a file.

    Raises:
        ValueError: If the file is no upscale model of RGB pictures.
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
        raise ValueError(f"backbone {path} is no upscale model: {error}") from error
    if not isinstance(model, ImageModelDescriptor) or model.input_channels != 3:
        raise ValueError(f"backbone {path} does not enlarge RGB pictures")

    @torch.inference_mode()
    def enlarge(crop: Image.Image) -> Image.Image:
        return to_pillow(model(from_pillow(crop).to(device)))

    return enlarge
