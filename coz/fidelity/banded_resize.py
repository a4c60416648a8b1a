"""Resize with two banded matrices, one for each axis, which also give the adjoint.

The matrices are cached for each pair of sizes and each device. ``resample.resize`` sums the taps
instead. It accepts any region of an image. A video needs a different region for each frame: there, making
the matrices would take the time that they save.
"""

from collections.abc import Generator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ..resample import compute_taps

Kernel = Literal["bicubic", "area"]

KERNELS: list[Kernel] = list(get_args(Kernel))

BLOCK_ROWS = 32
"""Number of rows of a banded matrix that are multiplied at once."""

MAX_CACHED_MATRICES = 32
"""Number of axes whose matrices are cached. The matrices from 8192 to 2048 pixels take 2 MB."""

MAX_PIXELS_AT_ONCE = 2048**2
"""Planes are resized together up to this number of pixels, which a GPU does in fewer calls. Larger planes
are resized one by one, which takes less memory."""


def resize_banded(image: Tensor, height: int, width: int, kernel: Kernel = "bicubic") -> Tensor:
    """Resize a whole image like ``resample.resize``, several times as fast.

    Args:
        image: (B, C, H, W), any float dtype, any value range.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
        kernel: Antialiased filter: "bicubic" as in Pillow, or "area", the mean over the area of each
            output pixel.

    Returns:
        (B, C, height, width) float32, not clamped.

    Raises:
        ValueError: If ``kernel`` is unknown.
    """
    rows, columns = make_resize_matrices(image, height, width, kernel)
    return multiply_both_axes(rows.down, columns.down, image.float())


def make_resize_matrices(
    image: Tensor, height: int, width: int, kernel: Kernel
) -> tuple["AxisMatrices", "AxisMatrices"]:
    """Make the matrices that resize ``image`` (B, C, H, W) along its height and along its width.

    Raises:
        ValueError: If ``kernel`` is unknown.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {', '.join(KERNELS)}, got {kernel}")
    return (
        _copy_axis_matrices(image.shape[-2], height, kernel, image.device),
        _copy_axis_matrices(image.shape[-1], width, kernel, image.device),
    )


class Block(NamedTuple):
    """Some rows of a banded matrix, with the range of columns that holds all their values."""

    rows: slice
    columns: slice
    values: Tensor


class AxisMatrices(NamedTuple):
    """The matrix D that resizes one axis, its adjoint D' and D D', each in blocks of rows."""

    down: list[Block]
    back: list[Block]
    gram: list[Block]


@lru_cache(MAX_CACHED_MATRICES)
def _copy_axis_matrices(big: int, small: int, kernel: Kernel, device: torch.device) -> AxisMatrices:
    """Copy the matrices to a device; on the CPU they are the cached ones themselves."""
    return AxisMatrices(
        *(
            [block._replace(values=block.values.to(device)) for block in blocks]
            for blocks in _make_axis_matrices(big, small, kernel)
        )
    )


@lru_cache(MAX_CACHED_MATRICES)
def _make_axis_matrices(big: int, small: int, kernel: Kernel) -> AxisMatrices:
    if big == small:
        column, value = torch.arange(big)[None], torch.ones(1, big, dtype=torch.float64)
    elif kernel == "bicubic":
        column, value = compute_taps(big, small, 0, big, "bicubic")
    else:
        column, value = _compute_area_taps(big, small)
    used = value != 0
    row, column, value = torch.arange(small).expand_as(value)[used], column[used], value[used]
    down = [_make_block(row, column, value, rows) for rows in _split_rows(small)]
    back = [_make_block(column, row, value, rows) for rows in _split_rows(big)]
    # A block of D D' is the block of D times those rows of D' that match the columns of the block. They
    # are nonzero only in a few columns.
    adjoint = [_make_block(column, row, value, block.columns) for block in down]
    gram = [
        Block(a.rows, b.columns, a.values @ b.values) for a, b in zip(down, adjoint, strict=True)
    ]
    return AxisMatrices(
        *([b._replace(values=b.values.float()) for b in x] for x in (down, back, gram))
    )


def _split_rows(size: int) -> list[slice]:
    return [slice(start, min(start + BLOCK_ROWS, size)) for start in range(0, size, BLOCK_ROWS)]


def _make_block(row: Tensor, column: Tensor, value: Tensor, rows: slice) -> Block:
    inside = (row >= rows.start) & (row < rows.stop)
    first, last = (int(v) for v in column[inside].aminmax())
    values = torch.zeros(rows.stop - rows.start, last + 1 - first, dtype=torch.float64)
    values[row[inside] - rows.start, column[inside] - first] = value[inside]
    return Block(rows, slice(first, last + 1), values)


def _compute_area_taps(big: int, small: int) -> tuple[Tensor, Tensor]:
    """Like ``compute_taps``, list the input pixels of each output pixel, weighted by their common area."""
    edge = torch.arange(small + 1, dtype=torch.float64) * big / small
    first = edge[:-1].floor()
    tap = first + torch.arange(int((edge[1:].ceil() - first).max()))[:, None]
    weight = (torch.minimum(edge[1:], tap + 1) - torch.maximum(edge[:-1], tap)).clamp(min=0)
    return tap.clamp(max=big - 1).long(), weight / weight.sum(0)


def group_planes(count: int, height: int, width: int) -> list[slice]:
    """Divide ``count`` planes of (height, width) pixels into groups of at most ``MAX_PIXELS_AT_ONCE``."""
    size = max(1, MAX_PIXELS_AT_ONCE // (height * width))
    return [slice(first, first + size) for first in range(0, count, size)]


def multiply_both_axes(rows: list[Block], columns: list[Block], image: Tensor) -> Tensor:
    """Multiply (B, C, H, W) by two matrices, along its height and along its width."""
    planes = image.flatten(0, 1)
    height, width = rows[-1].rows.stop, columns[-1].rows.stop
    result = planes.new_empty(len(planes), height, width)
    with forbid_tf32():
        for group in group_planes(len(planes), height, planes.shape[-1]):
            inputs, outputs = planes[group].contiguous(), result[group]
            resized_rows = inputs.new_empty(len(inputs), height, inputs.shape[-1])
            for block in rows:
                values = block.values.expand(len(inputs), -1, -1)
                torch.bmm(values, inputs[:, block.columns], out=resized_rows[:, block.rows])
            for block in columns:
                values = block.values.mT.expand(len(inputs), -1, -1)
                torch.bmm(resized_rows[..., block.columns], values, out=outputs[..., block.rows])
    return result.reshape(*image.shape[:2], height, width)


@contextmanager
def forbid_tf32() -> Generator[None]:
    """Within this context, torch multiplies float32 matrices without rounding them to TF32.

    TF32 keeps 11 bits: a resized image would have a PSNR of about 70 dB and no better. The setting is
    global: while the context is open, it also affects other threads.
    """
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    # torch.get_float32_matmul_precision raises an error after other code has set a backend's precision.
    backends: list[Any] = [torch.backends.cuda, torch.backends.mkldnn]
    precisions = [backend.matmul.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.matmul.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, precisions, strict=True):
            backend.matmul.fp32_precision = precision
