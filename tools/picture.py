"""Picture files, read and written with Pillow."""

import base64
import io
import struct
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from coz.color.profile import convert_to_srgb

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
            return convert_to_srgb(picture)
    except UnidentifiedImageError as error:  # its words are the path again
        raise PictureError(f"{path} is not a picture that can be read") from error
    except DAMAGED as error:
        raise PictureError(f"{path} is not a picture that can be read: {error}") from error


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as a file of Pillow's format ``kind``, saved with these options."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def to_png(picture: Image.Image) -> bytes:
    """The picture as a file, written quickly."""
    return encode(picture, "png", compress_level=1)


def data_url(kind: str, file: bytes) -> str:
    """A picture file as text for a page or a request."""
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def size_of(file: bytes) -> tuple[int, int]:
    """(width, height) of a picture's file."""
    with Image.open(io.BytesIO(file)) as picture:
        return picture.size
