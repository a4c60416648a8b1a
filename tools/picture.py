"""Picture files, pictures of Pillow, and frames of coz."""

import io
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from coz.color_profile import to_srgb

DAMAGED = (
    *(OSError, SyntaxError, ValueError, RuntimeError, AttributeError, EOFError, struct.error),
    Image.DecompressionBombError,
)
"""What Pillow's readers raise where a file is damaged."""


class PictureError(Exception):
    """What is wrong with a picture, in one line."""


def open_picture(path: Path) -> Image.Image:
    """The picture, upright, as 8-bit sRGB: a colour profile in the file is applied.

    Raises:
        PictureError: If there is no such file, or it holds no picture.
    """
    if not path.exists():
        raise PictureError(f"there is no file {path}")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits; Pillow would clip them
                profile = picture.info.get("icc_profile")
                picture = picture.point(lambda value: value / 256).convert("L")
                picture.info["icc_profile"] = profile
            return to_srgb(picture)
    except UnidentifiedImageError as error:  # its words are the path again
        raise PictureError(f"{path} is not a picture that can be read") from error
    except DAMAGED as error:
        raise PictureError(f"{path} is not a picture that can be read: {error}") from error


def to_frame(picture: Image.Image) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1] of an RGB picture."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].contiguous().float() / 255


def to_picture(frame: Tensor) -> Image.Image:
    """The frame, clamped and rounded to 8 bits."""
    pixels = (frame[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


def to_png(picture: Image.Image) -> bytes:
    """The picture as a file, written quickly."""
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def size_of(file: bytes) -> tuple[int, int]:
    """(width, height) of a picture's file."""
    with Image.open(io.BytesIO(file)) as picture:
        return picture.size
