import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from coz.color.profile import (
    MAX_PROFILE_NAME_CHARACTERS,
    convert_to_srgb,
    read_non_srgb_profile_name,
)
from tests.conftest import DATA
from tools.host import ROOT
from tools.image_file import open_image
from tools.train_grpo.photo import read_photo

ROUNDING = 2
"""Levels of 255: the file holds its colours rounded."""


def picture(mode, profile, colour=128):
    """A picture of one colour, as it is opened from a file with this profile."""
    file = io.BytesIO()
    Image.new(mode, (4, 3), colour).save(file, "TIFF", icc_profile=profile)
    return Image.open(file)


def grey_profile(gamma, name=b"Some grey"):
    """The smallest ICC profile of grey pictures; gamma 0: a profile that is cut short."""
    desc = b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(256 * gamma)) + bytes(2)
    tags, body = b"", b""
    for kind, content in ((b"desc", desc), (b"wtpt", white), (b"kTRC", curve)):
        content += bytes(-len(content) % 4)
        tags += kind + struct.pack(">II", 128 + 4 + 36 + len(body), len(content))
        body += content
    table = struct.pack(">I", 3) + tags + body
    size = struct.pack(">I", 128 + len(table))
    head = size + bytes(4) + b"\x02\x20\x00\x00" + b"mntrGRAYXYZ " + bytes(12) + b"acsp"
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061).ljust(60, b"\0") + table


def difference(one, other):
    return np.abs(np.asarray(one, np.int16) - np.asarray(other.convert("RGB"), np.int16)).max()


P3 = Image.open(DATA / "p3.png").info["icc_profile"]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LONG, LONG_NAME = b"x" * 200, "x" * MAX_PROFILE_NAME_CHARACTERS


@pytest.mark.parametrize(
    "read", [open_image, read_photo, lambda path: convert_to_srgb(Image.open(path))]
)
def test_a_profile_is_applied(read):
    true = Image.open(DATA / "p3_true.png")
    assert difference(read(DATA / "p3.png"), true) <= ROUNDING
    assert difference(Image.open(DATA / "p3.png").convert("RGB"), true) > 60
    assert read(DATA / "p3.png").getpixel((5, 5)) == true.getpixel((5, 5)) == (220, 40, 40)
    assert difference(read(DATA / "p3_true.png"), true) == 0


@pytest.mark.parametrize(
    ("opened", "name"),
    [
        pytest.param(picture("RGB", P3), "Display P3 like", id="Display P3"),
        pytest.param(picture("RGBA", P3, (1, 2, 3, 4)), "Display P3 like", id="with alpha"),
        pytest.param(picture("L", P3), "Display P3 like", id="grey of another gamma"),
        pytest.param(picture("RGB", SRGB), "", id="sRGB by another name"),
        pytest.param(picture("L", grey_profile(1.0)), "Some grey", id="grey"),
        pytest.param(picture("L", grey_profile(1.0, LONG)), LONG_NAME, id="a long name"),
        pytest.param(picture("RGB", grey_profile(1.0)), "", id="of another kind of picture"),
        pytest.param(picture("CMYK", P3, (1, 2, 3, 4)), "", id="CMYK with a profile of RGB"),
        pytest.param(picture("RGB", P3[:200]), "", id="cut short"),
        pytest.param(picture("RGB", b"no profile"), "", id="damaged"),
        pytest.param(Image.new("RGB", (4, 3)), "", id="none"),
    ],
)
def test_only_what_is_not_srgb_is_named(opened, name):
    assert read_non_srgb_profile_name(opened) == name
    assert convert_to_srgb(opened).mode == "RGB"


def test_grey_and_deep_pictures_are_converted(tmp_path):
    linear, grey = grey_profile(1.0), (188, 188, 188)  # sRGB of 128 / 255
    assert convert_to_srgb(picture("L", linear)).getpixel((0, 0)) == grey
    deep = Image.fromarray(np.full((3, 4), 128 * 256, np.uint16))
    deep.save(tmp_path / "deep.png", icc_profile=linear)
    assert open_image(tmp_path / "deep.png").getpixel((0, 0)) == grey


def test_srgb_by_another_name_stays_as_it_is():
    astronaut = Image.open(ROOT / "pictures" / "astronaut.png")
    assert astronaut.info["icc_profile"] != SRGB
    assert difference(convert_to_srgb(astronaut), astronaut) == 0


def test_transparency_is_dropped_not_converted():
    opaque = convert_to_srgb(picture("RGB", P3, (10, 200, 30)))
    assert difference(convert_to_srgb(picture("RGBA", P3, (10, 200, 30, 0))), opaque) == 0
