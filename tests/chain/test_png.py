import io
import sys
import zlib
from time import process_time

import numpy as np
import pytest
import torch
from PIL import Image

from coz.chain.png import decode_png, encode_png
from tests.support.lying_files import chunk, ihdr, lying_pngs, png, rows, stuffed_pngs

NOTHING = chunk(b"IDAT", zlib.compress(b""))


def test_every_value_of_8_and_16_bits_is_exact():
    frame = torch.arange(65536).reshape(1, 1, 256, 256).repeat(1, 3, 1, 1) / 65535
    assert torch.equal(decode_png(encode_png(frame), 256, 256), frame)
    of_8_bits = torch.arange(256).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1) / 255
    assert torch.equal(decode_png(encode_png(of_8_bits), 16, 16), of_8_bits)


def test_png_of_16_bits_of_another_program():
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG")
    expected = torch.from_numpy(grey.astype(np.float32) / np.float32(65535)).expand(1, 3, 256, 256)
    assert torch.equal(decode_png(file.getvalue(), 256, 256), expected)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "this is no PNG image"),
        (b"GIF89a" + bytes(99), "this is no PNG image"),
        (encode_png(torch.zeros(1, 3, 9, 9))[:-1], "the file ends in the middle of the image"),
        (encode_png(torch.zeros(1, 3, 9, 9))[:40], "the file ends in the middle of the image"),
        (png(ihdr(9, 9, 16), chunk(b"IDAT", b"nonsense")), "the image is damaged"),
        (png(ihdr(9, 9, 16)), "the file ends in the middle of the image"),
        (png(ihdr(9, 8, 16), NOTHING), "it is 9 x 8 pixels, expected 9 x 9"),
        (png(ihdr(60_000, 60_000, 16), NOTHING), "it is 60000 x 60000 pixels, expected 9 x 9"),
    ],
    ids=["empty", "GIF", "without its end", "cut", "nonsense", "no pixels", "8 rows", "a bomb"],
)
def test_a_damaged_file_is_refused(file, message):
    with pytest.raises(ValueError, match=message):
        decode_png(file, 9, 9)


def test_a_picture_that_lies_is_refused():
    files = lying_pngs(9, 9)
    assert len(files) == 23
    # All but one of its rows; the checksums are right. FFmpeg would leave the last one black.
    files["a row is missing"] = png(ihdr(9, 9), rows(9, 8))
    for file in files.values():
        with pytest.raises(ValueError, match=r"image|expected 9 x 9"):
            decode_png(file, 9, 9)


def test_of_a_stuffed_picture_only_the_pixels_are_read():
    files = stuffed_pngs(9, 9)
    before = peak_memory()
    with pytest.raises(ValueError, match="it holds far more data than its pixels need"):
        decode_png(files.pop("pixels"), 9, 9)
    for file in files.values():
        assert torch.equal(decode_png(file, 9, 9), torch.full((1, 3, 9, 9), 64 / 255))
    assert peak_memory() - before < 64 * 2**20


def test_what_lies_behind_the_pixels_takes_no_time():
    more = [chunk(b"IDAT", bytes(1000))] * 20_000
    before = process_time()
    decode_png(png(ihdr(9, 9), rows(9, 9), *more), 9, 9)
    assert process_time() - before < 2


@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (9, 1), (37, 23)])
def test_small_and_interlaced_pictures_are_whole(interlace, width, height):
    small = Image.effect_noise((width, height), 90).convert("RGB")
    if interlace:
        file = png(ihdr(width, height, interlace=1), adam7(np.asarray(small)))
    else:
        packed = io.BytesIO()
        small.save(packed, "PNG")
        file = packed.getvalue()
    read = (decode_png(file, height, width)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(read, np.asarray(small))


def adam7(pixels):
    """The seven passes of an interlaced picture: PNG specification, 8.2."""
    starts = (0, 0), (0, 4), (4, 0), (0, 2), (2, 0), (0, 1), (1, 0)
    steps = (8, 8), (8, 8), (8, 4), (4, 4), (4, 2), (2, 2), (2, 1)
    passes = [pixels[y::dy, x::dx] for (y, x), (dy, dx) in zip(starts, steps, strict=True)]
    lines = [b"\0" + line.tobytes() for each in passes for line in each if line.size]
    return chunk(b"IDAT", zlib.compress(b"".join(lines)))


def peak_memory():
    resource = pytest.importorskip("resource", reason="Windows does not tell the peak")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
