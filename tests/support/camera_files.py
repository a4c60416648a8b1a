"""Pictures as cameras and editors make them, and a browser shows them otherwise than ComfyUI."""

import struct
from pathlib import Path

from PIL import Image, ImageCms

COLORS = [(220, 20, 20), (20, 220, 20), (20, 20, 220), (220, 220, 20)]
"""Of the quarters of a picture, row by row."""


def quarters(width: int = 60, height: int = 40) -> Image.Image:
    """Four plain quarters: any mirroring or rotation shows."""
    picture = Image.new("RGB", (2, 2))
    picture.putdata(COLORS)
    return picture.resize((width, height), Image.Resampling.NEAREST)


def oriented(path: Path, orientation: int, size: tuple[int, int] = (60, 40)) -> None:
    """Write the quarters with an EXIF orientation, 1 to 8."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if path.suffix == ".webp" else {}
    quarters(*size).save(path, exif=exif, **options)


def _profile(primaries: dict[bytes, tuple[float, float, float]]) -> bytes:
    """A matrix profile made of sRGB's by exchanging the columns of its primaries."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for i in range(struct.unpack(">I", data[128:132])[0]):
        tag, offset, _ = struct.unpack(">4sII", data[132 + 12 * i : 144 + 12 * i])
        if tag in primaries:
            values = [round(v * 65536) for v in primaries[tag]]
            data[offset + 8 : offset + 20] = struct.pack(">3i", *values)
    return bytes(data)


DISPLAY_P3 = _profile(
    {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
)
