"""A photograph, what spoils it, and what the evaluation measures of it."""

import numpy as np
import torch
import torchvision
from PIL import Image

from coz.resample import resize
from tools.host import ROOT


def photo():
    with Image.open(ROOT / "pictures" / "astronaut.png") as picture:
        pixels = np.array(picture.convert("RGB"))[100:292, 150:342]
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous().float() / 255


def measured(meter, sr, truth, lq=None, source=None):
    lq = resize(sr, sr.shape[-2] // 4, sr.shape[-1] // 4).clamp(0, 1) if lq is None else lq
    source = lq if source is None else source
    scores, _ = meter.measure(sr, lq=lq, source=source, ground_truth=truth)
    return scores


def blurred(image, sigma):
    size = 2 * int(3 * sigma) + 3
    return torchvision.transforms.functional.gaussian_blur(image, size, sigma).clamp(0, 1)


def noisy(image, amount):
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + amount * noise).clamp(0, 1)
