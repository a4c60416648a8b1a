"""Resize batches of float images exactly as Pillow does.

Each axis is resized separately, as a weighted sum of a few input pixels (taps). Results match Pillow's
float mode ("F"). Its 8-bit mode, which the paper's code uses, rounds and clips between the two passes.
"""

from math import ceil, floor, pi
from typing import Literal, get_args

import torch
from torch import Tensor

from .geometry import EDGE_TOLERANCE, FirstFrame, Window

Resampling = Literal["bicubic", "lanczos", "nearest"]

RESAMPLINGS: list[Resampling] = list(get_args(Resampling))

BICUBIC_A = -0.5
"""Parameter a of the bicubic filter. Source: Pillow src/libImaging/Resample.c, bicubic_filter. torch uses
-0.75."""

FILTER_RADIUS_PIXELS = {"bicubic": 2.0, "lanczos": 3.0}
"""Radius of each filter when enlarging. Source: Pillow src/libImaging/Resample.c, BICUBIC and LANCZOS."""


def require_same_shape(first: Tensor, second: Tensor, names: str) -> None:
    """Raise a ValueError if the shapes of two images differ. Its message starts with ``names``."""
    if first.shape != second.shape:
        raise ValueError(
            f"{names} must have the same shape, got {tuple(first.shape)} and "
            f"{tuple(second.shape)}: resize one of them"
        )


def crop(image: Tensor, window: Window) -> Tensor:
    """Cut an integer window out of ``image`` (B, C, H, W), as a tensor view without a copy."""
    x, y, width, height = (int(v) for v in window)
    return image[..., y : y + height, x : x + width]


def crop_mirrored(image: Tensor, window: Window) -> Tensor:
    """Cut out an integer window that may reach beyond the image, which is mirrored there.

    Args:
        image: (B, C, H, W), any dtype.
        window: In pixels of the image, of any size and at any position.

    Returns:
        (B, C, h, w), a tensor view if the window lies inside the image. Outside the image its
        pixels are mirrored, as often as needed; the edge pixels are not doubled.
    """
    x, y, width, height = (int(v) for v in window)
    beyond: list[tuple[int, int, int, int]] = []
    for axis, start, length in ((-2, y, height), (-1, x, width)):
        side = image.shape[axis]
        if start >= 0 and start + length <= side:
            image = image.narrow(axis, start, length)
        else:
            beyond.append((axis, start, length, side))
    for axis, start, length, side in beyond:
        period = max(1, 2 * (side - 1))
        place = torch.arange(start, start + length, device=image.device).remainder_(period)
        image = image.index_select(axis, torch.minimum(place, period - place))
    return image


def cut_first_frame(image: Tensor, first: FirstFrame) -> Tensor:
    """Cut x_0 out of an image.

    Args:
        image: (B, C, H, W), values in [0, 1].
        first: From ``place_first_frame``, for an image of this size.

    Returns:
        (B, C, h, w) in [0, 1], a copy, which has the image's own pixels if nothing is resized.
    """
    if (first.window.width, first.window.height) == (first.width, first.height):
        # A tensor view would keep the whole image in memory.
        return crop(image, first.window).clone()
    return resize(image, first.height, first.width, "lanczos", first.window).clamp(0, 1)


def resize(
    image: Tensor,
    height: int,
    width: int,
    resampling: Resampling = "bicubic",
    box: Window | None = None,
) -> Tensor:
    """Resize a batch, or a region of it, to (height, width) pixels.

    Args:
        image: (B, C, H, W), any float dtype, any value range.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
        resampling: "bicubic" and "lanczos" are antialiased when downscaling.
        box: Region of ``image`` in its pixels, fractions allowed. The filter also reads pixels
            around it. None takes the whole image.

    Returns:
        (B, C, height, width) float32, not clamped: bicubic and lanczos overshoot at edges.

    Raises:
        ValueError: If a side of the result is below 1 or the box does not lie inside the image.

    Source: Pillow Image.resize with reducing_gap=None.
    """
    if height < 1 or width < 1:
        raise ValueError(f"the new size must be at least 1 x 1, got {width} x {height}")
    in_height, in_width = image.shape[-2:]
    image = image.float()
    if box is None and (height, width) == (in_height, in_width):
        return image
    box = box or Window(0, 0, in_width, in_height)
    if not _fits(box.y, box.height, in_height) or not _fits(box.x, box.width, in_width):
        raise ValueError(f"{box} does not lie inside an image of {in_width} x {in_height}")
    if resampling == "nearest":
        rows = _find_nearest(in_height, height, box.y, box.height, image.device)
        columns = _find_nearest(in_width, width, box.x, box.width, image.device)
        return image[..., rows, :][..., columns]
    # Read only the columns that the filter needs: the box may be a small part of a large image.
    reach = FILTER_RADIUS_PIXELS[resampling] * max(box.width / width, 1.0)
    first = max(floor(box.x - reach), 0)
    image = image[..., first : ceil(box.x + box.width + reach)]
    image = _resize_height(image, height, box.y, box.height, resampling)
    return _resize_height(image.mT, width, box.x - first, box.width, resampling).mT


def resize_region(image: Tensor, box: Window, height: int, width: int) -> Tensor:
    """Resize a region of images with "bicubic", reading only the rows that the filter needs.

    Args:
        image: (B, C, H, W), any float dtype.
        box: The region, in pixels of the image. Rounding may have moved its edges beyond the image.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.

    Returns:
        (B, C, height, width), clamped to [0, 1].
    """
    margin = ceil(FILTER_RADIUS_PIXELS["bicubic"] * max(box.height / height, 1.0)) + 1
    rows, columns = image.shape[-2:]
    top = max(floor(box.y) - margin, 0)
    x, y = max(box.x, 0.0), max(box.y, 0.0)
    box = Window(x, y - top, min(box.width, columns - x), min(box.height, rows - y))
    part = image[..., top : top + ceil(box.y + box.height) + margin, :]
    return resize(part, height, width, box=box).clamp(0, 1)


def _fits(start: float, length: float, side: int) -> bool:
    return start >= -EDGE_TOLERANCE and length > 0 and start + length <= side + EDGE_TOLERANCE


def _resize_height(
    image: Tensor, size: int, start: float, length: float, resampling: Resampling
) -> Tensor:
    in_size = image.shape[-2]
    if size == in_size and start == 0 and length == in_size:
        return image
    index, weight = compute_taps(in_size, size, start, length, resampling)
    index, weight = index.to(image.device), weight.float().to(image.device)
    image = image.contiguous()
    out = image.new_zeros((*image.shape[:-2], size, image.shape[-1]))
    for rows, w in zip(index, weight, strict=True):
        out.addcmul_(image.index_select(-2, rows), w[:, None])
    return out


def compute_taps(
    in_size: int, size: int, start: float, length: float, resampling: Resampling
) -> tuple[Tensor, Tensor]:
    """Compute for each output pixel the indices of its input pixels, and their weights.

    Both have the shape (taps, size).
    """
    scale = length / size
    filter_scale = max(scale, 1.0)
    support = FILTER_RADIUS_PIXELS[resampling] * filter_scale
    center = start + (torch.arange(size, dtype=torch.float64) + 0.5) * scale
    first = (center - support + 0.5).floor().clamp(min=0)
    last = (center + support + 0.5).floor().clamp(max=in_size)
    tap = first + torch.arange(int((last - first).max()))[:, None]
    distance = (tap + 0.5 - center) / filter_scale
    weight = _bicubic_filter(distance) if resampling == "bicubic" else _lanczos_filter(distance)
    weight = torch.where(tap < last, weight, 0.0)
    return tap.clamp(max=in_size - 1).long(), weight / weight.sum(0)


def _bicubic_filter(x: Tensor) -> Tensor:
    a, x = BICUBIC_A, x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, 0.0))


def _lanczos_filter(x: Tensor) -> Tensor:
    x = x * pi
    window = torch.sinc(x / (3 * pi))
    return torch.where(x.abs() < 3 * pi, torch.sinc(x / pi) * window, 0.0)


def _find_nearest(
    in_size: int, size: int, start: float, length: float, device: torch.device
) -> Tensor:
    center = start + (torch.arange(size, dtype=torch.float64) + 0.5) * (length / size)
    return center.floor().long().clamp(0, in_size - 1).to(device)
