"""Pictures of Pillow as frames of coz, and back."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_frame(picture: Image.Image) -> Tensor:
    """(1, 3, H, W) float32 in [0, 1] of an RGB picture."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].contiguous().float() / 255


def to_picture(frame: Tensor) -> Image.Image:
    """The frame, clamped and rounded to 8 bits."""
    pixels = (frame[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())
