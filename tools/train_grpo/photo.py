"""Photographs as files bring them, and why one cannot be used."""

import struct
from pathlib import Path

from PIL import Image, ImageOps

from coz.color.profile import convert_to_srgb

SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".tif", ".tiff", ".webp"}
LEAST_SIDE = 64
"""Pixels of the short side. Below, a zoom by four shows a dozen pixels."""

COLOURS = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa"}
BITS_PER_SAMPLE = 258
"""The tag of a TIFF file."""


class UnusableError(Exception):
    """Why a file gives no pairs, in a few words."""


def photo_files(folder: Path) -> list[Path]:
    """The picture files in a folder and all below it, in the order of their names."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def read_photo(path: Path) -> Image.Image:
    """The picture upright, as sRGB, a profile applied; transparency is dropped.

    Raises:
        UnusableError: If the file is broken, tiny, animated, CMYK, or of more than 8 bits a channel.
    """
    try:
        with Image.open(path) as file:
            _require_plain(file, path)
            return convert_to_srgb(ImageOps.exif_transpose(file))
    except UnusableError:
        raise
    except MemoryError as error:
        raise UnusableError("too large for the memory here") from error
    except Exception as error:  # a damaged file makes Pillow's decoders raise anything
        reason = str(error).split(" '")[0].strip(" :") or type(error).__name__
        raise UnusableError(f"cannot be read: {reason}") from error


def _require_plain(file: Image.Image, path: Path) -> None:
    # A phone's MPO file is one photograph and its preview.
    if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":
        raise UnusableError(f"animated, or {file.n_frames} pictures in one file")
    if file.mode == "CMYK":
        raise UnusableError("CMYK: save it as RGB")
    if file.mode not in COLOURS or _bits(file, path) > 8:
        raise UnusableError(f"more than 8 bits a channel, or unknown colours ({file.mode})")
    if min(file.size) < LEAST_SIDE:
        raise UnusableError(
            f"{file.width} x {file.height} pixels: {LEAST_SIDE} are needed each way"
        )


def _bits(file: Image.Image, path: Path) -> int:
    """Of a channel in the file: Pillow itself reads 16-bit RGB as 8-bit."""
    if file.format == "PNG":
        with path.open("rb") as content:
            return struct.unpack("24xB", content.read(25))[0]
    if file.format == "TIFF":
        return max(file.tag_v2.get(BITS_PER_SAMPLE, (8,)))
    return 8
