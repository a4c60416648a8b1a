"""Convert frames to Pillow's 8-bit images, and back."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pillow(frame: Tensor) -> Image.Image:
    """Convert a frame (1, 3, H, W) to an RGB image; values are clamped to [0, 1] and rounded."""
    pixels = (frame[0].clamp(0, 1) * 255).round().byte().movedim(0, -1)
    return Image.fromarray(pixels.cpu().numpy())


def from_pillow(image: Image.Image) -> Tensor:
    """Convert an RGB image to a frame (1, 3, H, W), float32 in [0, 1]."""
    pixels = torch.from_numpy(np.array(image))  # pyright: ignore[reportUnknownMemberType]
    return pixels.movedim(-1, 0)[None].contiguous().float() / 255
