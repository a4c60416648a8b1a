"""Write frames as 16-bit PNG files, and read PNG files.

Uses PyAV, which ComfyUI installs: Pillow supports only 8 bits per channel of an RGB image.
"""

import io
import zlib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from av.error import FFmpegError
from PIL.PngImagePlugin import PngInfo, putchunk
from torch import Tensor

SIGNATURE = b"\x89PNG\r\n\x1a\n"

HEADER_BYTES = 33
"""Size of the signature and the IHDR chunk, which the specification puts first."""

PIXEL_CHUNK_KINDS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")

CHANNELS_BY_COLOR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Values per pixel for each PNG color type."""

CUT_SHORT = "the file ends in the middle of the image"

UNPACK_BYTES = 2**20
"""Maximum number of bytes that are decompressed at once."""

COMPRESSION_LEVEL = "1"
"""zlib level, 0 to 9. An image of 12 megapixels took 1.8 s; level 6 took 3.5 s for a file 1 % smaller."""


def encode_png(image: Tensor, texts: Mapping[str, str] | None = None) -> bytes:
    """Encode an image as a 16-bit RGB PNG file: value v becomes round(65535 v).

    Args:
        image: (1, 3, H, W) float32 in [0, 1].
        texts: Text chunks, by keyword.
    """
    pixels = image[0].permute(1, 2, 0).cpu().numpy()
    values = np.multiply(pixels, 65535, order="C")
    np.rint(values, out=values)
    height, width, _ = values.shape
    codec: Any = av.CodecContext.create("png", "w")  # PyAV's type stubs are incomplete
    codec.width, codec.height, codec.pix_fmt = width, height, "rgb48be"
    codec.time_base = Fraction(1)
    codec.options = {"compression_level": COMPRESSION_LEVEL}
    frame = av.VideoFrame.from_ndarray(values.astype(np.uint16), format="rgb48le")
    packets = [*codec.encode(frame.reformat(format="rgb48be")), *codec.encode(None)]
    file = b"".join(bytes(packet) for packet in packets)
    info = PngInfo()
    for key, text in (texts or {}).items():
        info.add_text(key, text)
    chunks = io.BytesIO()
    for kind, text, *_ in info.chunks:
        putchunk(chunks, kind, text)
    return file[:HEADER_BYTES] + chunks.getvalue() + file[HEADER_BYTES:]


def decode_png(file: bytes, height: int, width: int) -> Tensor:
    """Decode a PNG file of any color type. Gray becomes RGB, alpha is dropped.

    Args:
        file: The whole content of the file.
        height: Expected height in pixels. No memory is allocated for another size.
        width: Expected width in pixels.

    Returns:
        (1, 3, H, W) float32: k / 65535, or k / 255 if the file has 8 bits or fewer.

    Raises:
        ValueError: If the file is no PNG, is cut short or damaged, or has another size.
    """
    if not file.startswith(SIGNATURE) or file[12:16] != b"IHDR":
        raise ValueError("this is no PNG image")
    stated = int.from_bytes(file[16:20], "big"), int.from_bytes(file[20:24], "big")
    if stated != (width, height):
        raise ValueError(f"it is {stated[0]} x {stated[1]} pixels, expected {width} x {height}")
    chunks = _split_pixel_chunks(file)
    depth, color = file[24:26]
    data = (chunk for kind, chunk in chunks if kind == b"IDAT")
    kept = b"".join(chunk for _, chunk in chunks)
    _require_size(data, height, height * width * depth * CHANNELS_BY_COLOR_TYPE.get(color, 1) // 8)
    codec: Any = av.CodecContext.create("png", "r")
    codec.options = {"err_detect": "crccheck+explode"}
    try:
        frames = [*codec.decode(av.Packet(kept)), *codec.decode(None)]
    except FFmpegError as error:
        raise ValueError(f"the image is damaged ({error.strerror})") from error
    is_16_bit = depth == 16
    # FFmpeg converts to other formats inexactly.
    values = frames[0].to_ndarray(format="rgb48le" if is_16_bit else "rgb24")
    pixels = np.divide(values, np.float32(65535 if is_16_bit else 255), dtype=np.float32)
    return torch.as_tensor(pixels).permute(2, 0, 1)[None]


def _split_pixel_chunks(file: bytes) -> list[tuple[bytes, bytes]]:
    """Return (kind, chunk) of the signature, which has no kind, and of the chunks needed to decode pixels.

    The others are left out: texts and profiles could decompress to any size.
    """
    kept, start = [(b"", SIGNATURE)], len(SIGNATURE)
    while start + 12 <= len(file):
        end = start + 12 + int.from_bytes(file[start : start + 4], "big")
        kind = file[start + 4 : start + 8]
        if kind in PIXEL_CHUNK_KINDS:
            kept.append((kind, file[start:end]))
        if kind == b"IEND":
            return kept
        start = end
    raise ValueError(CUT_SHORT)


def _require_size(chunks: Iterable[bytes], rows: int, pixel_bytes: int) -> None:
    """Refuse data that decompresses to fewer or to far more bytes than the image has.

    FFmpeg would fill missing pixels with black, and decompress any excess only to discard it.

    Args:
        chunks: The IDAT chunks.
        rows: Rows of the image, each of which starts with one filter byte.
        pixel_bytes: Size of all pixels.
    """
    max_bytes = 2 * (rows + pixel_bytes) + UNPACK_BYTES  # interlaced images have more rows
    found, unpack = 0, zlib.decompressobj()
    try:
        for chunk in chunks:
            packed = chunk[8:-4]
            while packed and not unpack.eof and found <= max_bytes:
                found += len(unpack.decompress(packed, UNPACK_BYTES))
                packed = unpack.unconsumed_tail
    except zlib.error as error:
        raise ValueError(f"the image is damaged ({error})") from error
    if found > max_bytes:
        raise ValueError("it holds far more data than its pixels need")
    if found < rows + pixel_bytes:
        raise ValueError(CUT_SHORT)
