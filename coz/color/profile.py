"""Colour profiles (ICC) that picture files carry, compared with sRGB and converted to it."""

from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from ..text.step_prompts import join_lines

MAX_SRGB_DIFFERENCE_LEVELS = 3
"""Levels of 255. Other makers' sRGB profiles differ from Pillow's by one or two; Display P3 by 100."""

MAX_PROFILE_NAME_CHARACTERS = 80
"""Characters that are kept of a profile's name."""

PATCH_LEVELS = (0, 32, 64, 128, 192, 255)


def name_foreign_profile(picture: Image.Image) -> str:
    """Return the name of a picture's profile, "" where it has none, sRGB by any name, or no readable one.

    Args:
        picture: As ``Image.open`` gives it; no pixel is read.
    """
    profile = _read_profile(picture)
    if profile is None:
        return ""
    patches = _make_patches(_find_profiled_mode(picture.mode))
    plain = np.asarray(patches.convert("RGB"), np.int16)
    try:
        converted = np.asarray(_apply_profile(patches, profile), np.int16)
    except ImageCms.PyCMSError:
        return ""  # of another kind of picture than it is in
    if np.abs(converted - plain).max() <= MAX_SRGB_DIFFERENCE_LEVELS:
        return ""
    return (
        join_lines(ImageCms.getProfileDescription(profile))[:MAX_PROFILE_NAME_CHARACTERS]
        or "without a name"
    )


def convert_to_srgb(picture: Image.Image) -> Image.Image:
    """Convert a picture by its profile to 8-bit sRGB; transparency is dropped.

    Nothing is converted where ``name_foreign_profile`` is "": sRGB stays as it is, to the last level.
    """
    profile = _read_profile(picture) if name_foreign_profile(picture) else None
    if profile is None:
        return picture.convert("RGB")
    return _apply_profile(picture.convert(_find_profiled_mode(picture.mode)), profile)


def _read_profile(picture: Image.Image) -> ImageCms.ImageCmsProfile | None:
    content = picture.info.get("icc_profile")
    if not isinstance(content, bytes):
        return None
    try:
        return ImageCms.ImageCmsProfile(BytesIO(content))
    except OSError:
        return None


def _find_profiled_mode(mode: str) -> str:
    """The mode in which a picture's values are those that its profile describes."""
    return mode if mode in {"CMYK", "LAB"} else "L" if mode in {"1", "L", "LA"} else "RGB"


def _apply_profile(picture: Image.Image, profile: Any) -> Image.Image:
    cms: Any = ImageCms  # its types are not complete
    if picture.mode == "L" and profile.profile.xcolor_space.strip() == "RGB":
        picture = picture.convert("RGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return cms.profileToProfile(picture, profile, cms.createProfile("sRGB"), intent, "RGB")


def _make_patches(mode: str) -> Image.Image:
    """A picture of one row with some colours of a mode."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    colours = [bytes(colour) for colour in product(PATCH_LEVELS, repeat=channels)]
    return Image.frombytes(mode, (len(colours), 1), b"".join(colours))
