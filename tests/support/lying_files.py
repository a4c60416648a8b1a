"""Files whose headers lie, for tests: safetensors and PNG."""

import json
import struct
import zlib
from functools import cache

from coz.chain.png import SIGNATURE

LAYER = "lora_unet_a.lora_up.weight"


def safetensors(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: object, start: object, end: object, dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def lying_safetensors() -> dict[str, bytes]:
    """By what is wrong: none is the file that it says to be."""
    whole = entry([2], 0, 8)
    eight = bytes(8)
    spaces = b"{" + b" " * (100_000_000 - 2) + b"}"

    def one(*of: object) -> bytes:
        return safetensors({LAYER: entry(*of)}, eight)

    return {
        "header beyond the file": safetensors({LAYER: whole}, eight, 10_000),
        "header of 2 ** 40": safetensors({LAYER: whole}, eight, 2**40),
        "header of 2 ** 63": safetensors({LAYER: whole}, eight, 2**63),
        "header of 2 ** 64 - 1": safetensors({LAYER: whole}, eight, 2**64 - 1),
        "header of 0": safetensors({LAYER: whole}, eight, 0),
        "header of 1": safetensors({LAYER: whole}, eight, 1),
        "100 MB of blanks": safetensors(spaces),
        "more than 100 MB": safetensors(spaces + b" "),
        "half a header": safetensors(b'{"a": {'),
        "nested header": safetensors(b'{"a":' * 100_000),
        "nested lists": safetensors(b'{"a":' + b"[" * 1_000_000),
        "no UTF-8": safetensors(b'{"\xff\xfe": 1}'),
        "header is a list": safetensors(b"{}[]"),
        "tensor is a number": safetensors({LAYER: 1}),
        "tensor is null": safetensors({LAYER: None}),
        "no shape": safetensors({LAYER: {"dtype": "F32", "data_offsets": [0, 8]}}, eight),
        "metadata of numbers": safetensors({"__metadata__": {"format": 1}, LAYER: whole}, eight),
        "overlapping": safetensors({LAYER: whole, "b": entry([2], 4, 12)}, bytes(12)),
        "the same place twice": safetensors({LAYER: whole, "b": whole}, eight),
        "gap": safetensors({LAYER: whole, "b": entry([1], 12, 16)}, bytes(16)),
        "begins late": one([1], 4, 8),
        "more data than told": safetensors({LAYER: whole}, bytes(99)),
        "cut short": safetensors({LAYER: whole}, bytes(7)),
        "no data": safetensors({LAYER: whole}),
        "offsets past the end": one([2], 2**40, 2**40 + 8),
        "offsets backwards": one([2], 8, 0),
        "negative offset": one([2], -8, 0),
        "huge offset": one([2], 0, 2**64),
        "fraction as offset": one([2], 0, 8.5),
        "three offsets": safetensors(
            {LAYER: {"dtype": "F32", "shape": [2], "data_offsets": [0, 4, 8]}}, eight
        ),
        "negative shape": one([-2], 0, 8),
        "negative twice": one([-1, -2], 0, 8),
        "fraction as shape": one([2.0], 0, 8),
        "text as shape": one("2", 0, 8),
        "shape too large": one([2**40, 2**40], 0, 8),
        "shape that wraps around": one([2**32, 2**32, 2], 0, 8),
        "shape that wraps to its size": one([2**62 + 2], 0, 8),
        "unknown dtype": one([2], 0, 8, "F33"),
        "script as dtype": one([2], 0, 8, "<img src=x onerror=window.hacked=1>" * 10_000),
        "dtype is null": one([2], 0, 8, None),
        "half a value": one([2], 0, 8, "F64"),
        "four bits": one([3], 0, 2, "F4"),
    }


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def ihdr(width: int, height: int, depth: int = 8, color: int = 2, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))


def rows(width: int, height: int) -> bytes:
    return chunk(b"IDAT", zlib.compress((b"\0" + b"\x40" * (3 * width)) * height))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


@cache
def packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def lying_pngs(width: int, height: int) -> dict[str, bytes]:
    """By what is wrong with a picture that should have this size."""
    head, data = ihdr(width, height), rows(width, height)
    return {
        "nothing": b"",
        "no PNG": b"GIF89a" + bytes(99),
        "signature alone": SIGNATURE,
        "half a header": (SIGNATURE + head)[:24],
        "header alone": SIGNATURE + head,
        "no pixels": png(head),
        "empty pixels": png(head, chunk(b"IDAT", b"")),
        "huge": png(ihdr(2**31 - 1, 2**31 - 1), data),
        "huge as unsigned": png(ihdr(2**32 - 1, 2**32 - 1), data),
        "30,000 x 30,000": png(ihdr(30_000, 30_000), data),
        "other size": png(ihdr(width + 1, height), data),
        "no size": png(ihdr(0, 0), data),
        "second header": png(head, ihdr(30_000, 30_000), data),
        "header after the pixels": png(head, data, ihdr(30_000, 30_000), data),
        "pixels before the header": png(data, head),
        "chunk longer than the file": SIGNATURE + head + struct.pack(">I", 2**31) + data[4:],
        "chunk of 4 GB": SIGNATURE + head + b"\xff\xff\xff\xff" + data[4:],
        "wrong checksum": png(head, chunk(b"IDAT", data[8:-4], crc=1)),
        "no zlib": png(head, chunk(b"IDAT", b"PK\x03\x04" * 99)),
        "damaged zlib": png(head, chunk(b"IDAT", data[8:-7] + b"xxx")),
        "17 bits": png(ihdr(width, height, 17), data),
        "colour type 9": png(ihdr(width, height, 8, 9), data),
        "16 bits with a palette": png(ihdr(width, height, 16, 3), data),
    }


def stuffed_pngs(width: int, height: int) -> dict[str, bytes]:
    """Whole pictures with what would unpack to 256 MB, or go on for ever."""
    head, data = ihdr(width, height), rows(width, height)
    bomb = packed(2**28)
    return {
        "zTXt": png(head, chunk(b"zTXt", b"a\0\0" + bomb), data),
        "iTXt": png(head, chunk(b"iTXt", b"a\0\1\0\0\0" + bomb), data),
        "iCCP": png(head, chunk(b"iCCP", b"a\0\0" + bomb), data),
        "10,000 texts": png(head, chunk(b"tEXt", b"a\0b") * 10_000, data),
        "pixels": png(head, chunk(b"IDAT", bomb)),
        "100,000 empty chunks": png(head, chunk(b"IDAT", b"") * 100_000, data),
        "animation": png(head, chunk(b"acTL", b"\xff" * 8), chunk(b"fcTL", bytes(26)), data),
    }
