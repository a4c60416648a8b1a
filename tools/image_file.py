"""Read and write image files with Pillow."""

import base64
import io
import struct
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from coz.color.profile import convert_to_srgb

READ_ERRORS = (
    *(OSError, SyntaxError, ValueError, RuntimeError, AttributeError, EOFError, struct.error),
    Image.DecompressionBombError,
)
"""Exceptions that Pillow's readers raise if a file is damaged."""


class ImageError(Exception):
    """An error whose message says in one line what is wrong with an image file."""


def open_image(path: Path) -> Image.Image:
    """Read an image upright and in 8-bit sRGB, converted by the color profile in its file.

    Raises:
        ImageError: If there is no such file, or it holds no image.
    """
    if not path.exists():
        raise ImageError(f"there is no file {path}")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits, which Pillow would clip, not scale
                profile = picture.info.get("icc_profile")
                picture = picture.point(lambda value: value / 256).convert("L")
                picture.info["icc_profile"] = profile
            return convert_to_srgb(picture)
    except UnidentifiedImageError as error:  # its message only repeats the path
        raise ImageError(f"{path} is not an image that can be read") from error
    except READ_ERRORS as error:
        raise ImageError(f"{path} is not an image that can be read: {error}") from error


def encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode the image as a file of Pillow's format ``kind``, saved with these options."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def to_png(picture: Image.Image) -> bytes:
    """Encode the image as a PNG file, compressed quickly rather than well."""
    return encode(picture, "png", compress_level=1)


def make_data_url(kind: str, file: bytes) -> str:
    """Return an image file as a data URL for a page or a request."""
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def read_size(file: bytes) -> tuple[int, int]:
    """Return the (width, height) of an image file."""
    with Image.open(io.BytesIO(file)) as picture:
        return picture.size
