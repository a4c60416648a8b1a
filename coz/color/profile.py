"""Compare the color profiles (ICC) of image files with sRGB, and convert images to sRGB."""

from io import BytesIO
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from ..text.step_prompts import join_lines

MAX_SRGB_DIFFERENCE_LEVELS = 3
"""A profile counts as sRGB if it moves every color by at most this many levels of 255. sRGB profiles of
different makers differ by one or two levels; Display P3 differs by 100."""

MAX_PROFILE_NAME_CHARACTERS = 80
"""Length to which a profile's name is cut."""

PATCH_LEVELS = (0, 32, 64, 128, 192, 255)
"""Levels of each channel, in all combinations, for which a profile is compared with sRGB."""


def read_non_srgb_profile_name(image: Image.Image) -> str:
    """Return the name of an image's profile; "" if it has none, or it is sRGB or unreadable.

    Args:
        image: As ``Image.open`` returns it; its pixels are not read.
    """
    profile = _read_profile(image)
    if profile is None:
        return ""
    patches = _make_patches(_choose_mode_for_profile(image.mode))
    plain = np.asarray(patches.convert("RGB"), np.int16)
    try:
        converted = np.asarray(_apply_profile(patches, profile), np.int16)
    except ImageCms.PyCMSError:
        return ""  # the profile is made for another color mode
    if np.abs(converted - plain).max() <= MAX_SRGB_DIFFERENCE_LEVELS:
        return ""
    return (
        join_lines(ImageCms.getProfileDescription(profile))[:MAX_PROFILE_NAME_CHARACTERS]
        or "without a name"
    )


def convert_to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image by its profile to 8-bit sRGB; transparency is dropped.

    Where ``read_non_srgb_profile_name`` returns "", the pixel values stay exactly the same.
    """
    profile = _read_profile(image) if read_non_srgb_profile_name(image) else None
    if profile is None:
        return image.convert("RGB")
    return _apply_profile(image.convert(_choose_mode_for_profile(image.mode)), profile)


def _read_profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    content = image.info.get("icc_profile")
    if not isinstance(content, bytes):
        return None
    try:
        return ImageCms.ImageCmsProfile(BytesIO(content))
    except OSError:
        return None


def _choose_mode_for_profile(mode: str) -> str:
    """Return the Pillow mode to convert an image to before its profile is applied."""
    return mode if mode in {"CMYK", "LAB"} else "L" if mode in {"1", "L", "LA"} else "RGB"


def _apply_profile(image: Image.Image, profile: Any) -> Image.Image:
    cms: Any = ImageCms  # Pillow's type hints are incomplete
    if image.mode == "L" and profile.profile.xcolor_space.strip() == "RGB":
        image = image.convert("RGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    return cms.profileToProfile(image, profile, cms.createProfile("sRGB"), intent, "RGB")


def _make_patches(mode: str) -> Image.Image:
    """Make an image of one row that samples the colors of a mode."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    colors = [bytes(color) for color in product(PATCH_LEVELS, repeat=channels)]
    return Image.frombytes(mode, (len(colors), 1), b"".join(colors))
