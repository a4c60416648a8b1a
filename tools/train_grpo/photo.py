"""Find and read photographs, say why one cannot be used, and choose those that are held out."""

import hashlib
import os
import struct
from collections.abc import Collection
from pathlib import Path

from PIL import Image, ImageOps

from coz.color.profile import convert_to_srgb

SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".tif", ".tiff", ".webp"}
MIN_SIDE_PIXELS = 64
"""Minimum of the shorter side. In a smaller image a 4x step would show only a dozen pixels."""

EIGHT_BIT_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa"}
BITS_PER_SAMPLE = 258
"""The TIFF tag with the bits of a channel."""
HASH_RANGE = 2**32


class UnusableError(Exception):
    """An error whose message says briefly why a photograph or a chain cannot be used."""


def find_photos(folder: Path) -> list[Path]:
    """Return the image files in a folder and below it, sorted by name."""
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in files if path.is_file() and not path.name.startswith("."))


def name_photo(path: Path, folder: Path) -> str:
    """Return the name of a file below a folder, without the bytes that are not valid UTF-8."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")


def read_photo(path: Path) -> Image.Image:
    """Read an image upright, in sRGB (by its color profile) and without transparency.

    Raises:
        UnusableError: If the file is damaged, tiny, animated, CMYK, or has over 8 bits a channel.
    """
    try:
        with Image.open(path) as file:
            _require_usable(file, path)
            return convert_to_srgb(ImageOps.exif_transpose(file))
    except UnusableError:
        raise
    except MemoryError as error:
        raise UnusableError("too large for the memory here") from error
    except Exception as error:  # for a damaged file, Pillow's decoders may raise any exception
        reason = str(error).split(" '")[0].strip(" :") or type(error).__name__
        raise UnusableError(f"cannot be read: {reason}") from error


def _require_usable(file: Image.Image, path: Path) -> None:
    # An MPO file, as phones write it, holds one photograph and its preview.
    if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":
        raise UnusableError(f"animated, or {file.n_frames} images in one file")
    if file.mode == "CMYK":
        raise UnusableError("CMYK: save it as RGB")
    if file.mode not in EIGHT_BIT_MODES or _read_bits(file, path) > 8:
        raise UnusableError(f"more than 8 bits a channel, or unknown colors ({file.mode})")
    if min(file.size) < MIN_SIDE_PIXELS:
        raise UnusableError(
            f"{file.width} x {file.height} pixels: at least {MIN_SIDE_PIXELS} x {MIN_SIDE_PIXELS} are needed"
        )


def _read_bits(file: Image.Image, path: Path) -> int:
    """Return the bits per channel in the file. Pillow would convert 16-bit RGB to 8 bits."""
    if file.format == "PNG":
        with path.open("rb") as content:
            return struct.unpack("24xB", content.read(25))[0]
    if file.format == "TIFF":
        return max(file.tag_v2.get(BITS_PER_SAMPLE, (8,)))
    return 8


def choose_held_out(names: Collection[str], share: float) -> dict[str, bool]:
    """Decide which names are held out, by their hash, so that new names do not move old ones.

    If there are two or more, at least one is held out. They are never all held out.
    """
    places = {n: int.from_bytes(hashlib.blake2b(n.encode(), digest_size=4).digest()) for n in names}
    held = {name: place < share * HASH_RANGE for name, place in places.items()}
    if share > 0 and len(held) > 1 and not any(held.values()):
        held[min(places, key=places.get)] = True
    if held and all(held.values()):
        held[max(places, key=places.get)] = False
    return held
