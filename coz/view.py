"""Pictures made from a chain: the strip of its scales and the frames of a continuous zoom."""

from collections.abc import Iterator
from math import ceil, floor, isclose

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .chain import ZoomChain
from .geometry import Window
from .resample import resize

LABEL_HEIGHT = 1 / 12
"""Of a label's letters, as a fraction of the strip's height."""

FEATHER = 0.12
"""Width of the soft edge of an inset layer, as a fraction of its side, when it first appears."""


def factor_label(chain: ZoomChain, layer: int) -> str:
    """How far a layer is enlarged: 16x, or 15.9x16.2x (across, down) where the axes differ."""
    across, down = (f"{factor:.3g}x" for factor in chain.magnification(layer))
    return across if across == down else across + down


def strip(chain: ZoomChain, gap: int = 8) -> Tensor:
    """The scales x_0..x_n side by side, each labelled, the next window outlined.

    Args:
        chain: frames in [0, 1].
        gap: White space between two frames, in pixels.

    Returns:
        (1, 3, H, W') float32 in [0, 1]; H is the frames' height.
    """
    panels: list[Tensor] = []
    for layer in range(1, chain.steps + 2):
        next_window = chain.windows[layer] if layer <= chain.steps else None
        panel = _annotate(chain.frames[layer], factor_label(chain, layer), next_window)
        panels += [panel, panel.new_ones(1, 3, panel.shape[-2], gap)]
    return torch.cat(panels[:-1], dim=-1)


def zoom_frames(chain: ZoomChain, frames_per_step: int = 24) -> Iterator[Tensor]:
    """A steady zoom from the whole source into the deepest frame.

    The view shrinks by the same factor from each frame to the next, towards a point that does not
    move on the screen. Deeper layers fade in where the view comes close to them.

    Args:
        chain: frames in [0, 1].
        frames_per_step: Number of frames from one layer to the next.

    Yields:
        (1, 3, H, W) float32 in [0, 1], of the size of x_0. The last is the deepest frame itself.

    Raises:
        ValueError: If ``frames_per_step`` is below 1.
    """
    if frames_per_step < 1:
        raise ValueError(f"frames_per_step must be at least 1, got {frames_per_step}")
    for layer in range(len(chain.frames) - 1):
        start, end = _whole_view(chain, layer), chain.windows[layer]
        if all(isclose(a, b, abs_tol=1e-6) for a, b in zip(start, end, strict=True)):
            continue
        for k in range(frames_per_step):
            yield _render(
                chain, layer, _between(start, end, k / frames_per_step), k / frames_per_step
            )
    yield chain.frames[-1].clone()


def _whole_view(chain: ZoomChain, layer: int) -> Window:
    """All of a layer; of the source, the largest part of x_0's shape around x_0's window."""
    height, width = chain.frames[layer].shape[-2:]
    window = chain.windows[layer]
    if layer > 0:
        return Window(0, 0, width, height)
    enlarge = min(width / window.width, height / window.height)
    w, h = window.width * enlarge, window.height * enlarge
    x = min(max(window.x + window.width / 2 - w / 2, 0), width - w)
    y = min(max(window.y + window.height / 2 - h / 2, 0), height - h)
    return Window(x, y, w, h)


def _between(start: Window, end: Window, t: float) -> Window:
    """The view at time ``t`` (0..1) of a zoom of constant speed from ``start`` into ``end``."""
    x, width = _between_spans(start.x, start.width, end.x, end.width, t)
    y, height = _between_spans(start.y, start.height, end.y, end.height, t)
    return Window(x, y, width, height)


def _between_spans(
    start: float, start_length: float, end: float, end_length: float, t: float
) -> tuple[float, float]:
    length = start_length * (end_length / start_length) ** t
    shrunk = start_length - end_length
    done = (start_length - length) / shrunk if shrunk else t
    return start + (end - start) * done, length


def _render(chain: ZoomChain, layer: int, view: Window, t: float) -> Tensor:
    """The view of a layer with the next layer set into it."""
    height, width = chain.frames[1].shape[-2:]
    image = resize(chain.frames[layer], height, width, box=view).clamp_(0, 1)
    window, inset = chain.windows[layer], chain.frames[layer + 1]
    # The inset's place on the screen, then the whole pixels that lie inside it.
    fx, fy = width / view.width, height / view.height
    left, top = (window.x - view.x) * fx, (window.y - view.y) * fy
    right, bottom = left + window.width * fx, top + window.height * fy
    x0, x1 = max(ceil(left - 1e-6), 0), min(floor(right + 1e-6), width)
    y0, y1 = max(ceil(top - 1e-6), 0), min(floor(bottom + 1e-6), height)
    if x1 <= x0 or y1 <= y0:
        return image
    gx, gy = inset.shape[-1] / (right - left), inset.shape[-2] / (bottom - top)
    box = Window(max((x0 - left) * gx, 0), max((y0 - top) * gy, 0), (x1 - x0) * gx, (y1 - y0) * gy)
    detail = resize(inset, y1 - y0, x1 - x0, box=box).clamp_(0, 1)
    feather = FEATHER * (1 - t)
    fade = min(1.0, 3 * t)
    alpha = fade * _ramp(y1 - y0, feather)[:, None] * _ramp(x1 - x0, feather)
    image[..., y0:y1, x0:x1].lerp_(detail, alpha.to(image))
    return image


def _ramp(size: int, feather: float) -> Tensor:
    """Weights of one axis: 1 inside, falling towards 0 over ``feather * size`` at both ends."""
    edge = (torch.arange(size) + 0.5).minimum(size - 0.5 - torch.arange(size))
    return (edge / max(feather * size, 0.5)).clamp(max=1)


def _annotate(frame: Tensor, label: str, next_window: Window | None) -> Tensor:
    pixels = (frame[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture, "RGBA")
    height = picture.height
    if next_window is not None:
        x, y, w, h = next_window
        line = max(1, height // 256)
        outline = (x - line, y - line, x + w + line - 1, y + h + line - 1)
        draw.rectangle(outline, outline=(255, 255, 255, 230), width=line)
    font = ImageFont.load_default(max(8, round(height * LABEL_HEIGHT)))
    margin = height // 32
    box = draw.textbbox((2 * margin, height - 2 * margin), label, font=font, anchor="lb")
    plate = (box[0] - margin, box[1] - margin, box[2] + margin, box[3] + margin)
    draw.rounded_rectangle(plate, radius=margin, fill=(0, 0, 0, 150))
    draw.text((2 * margin, height - 2 * margin), label, font=font, anchor="lb", fill="white")
    return torch.tensor(np.array(picture)).permute(2, 0, 1)[None].to(frame) / 255
