"""Degrade sharp crops: Real-ESRGAN's second-order model, and a plain reduction by 4.

The model is that of arXiv 2107.10833, with the values of OSEDiff's and Chain-of-Zoom's training.
Deviation: Pillow makes the JPEG files, with the quality rounded to an integer. Theirs is differentiable,
which nothing needs here; the results differ by about one gray level.
"""

import io
from collections.abc import Sequence
from math import ceil, log2, pi
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from coz.render.pillow import from_pillow, to_pillow
from tools.image_file import encode

from .kernels import make_bell_kernel, make_sinc_kernel

SCALE = 4
"""A low-resolution image has a quarter of the width and height, and is enlarged again."""

KERNEL_SIZES = range(7, 22, 2)
KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
FILTERS = ("area", "bilinear", "bicubic")
LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in gray noise. Source: torchvision's rgb_to_grayscale."""

Range = tuple[float, float]


class Stage(NamedTuple):
    """Values of one of the two degradations, named as in upstream's params_realesrgan.yml."""

    blur_prob: float
    blur_sigma: Range
    resize_prob: tuple[float, float, float]
    """Probabilities of up, down and keep."""
    resize_range: Range
    noise_range: Range
    """Sigma of the Gaussian noise, for values of 0 to 255."""
    poisson_scale_range: Range
    betag_range: Range = (0.5, 4)
    """Exponents of the generalized Gaussian kernels; half of them are below 1."""
    betap_range: Range = (1, 2)
    """Exponents of the plateau kernels; half of them are 1."""
    kernel_list: tuple[str, ...] = KERNELS
    kernel_prob: tuple[float, ...] = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)
    sinc_prob: float = 0.1
    gaussian_noise_prob: float = 0.5
    """Probability of Gaussian noise; else it is Poisson noise."""
    gray_noise_prob: float = 0.4
    jpeg_range: Range = (30, 95)


REAL_ESRGAN = (
    Stage(1, (0.2, 3), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3)),
    Stage(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5)),
)
FINAL_SINC_PROB = 0.8


def degrade(image: Tensor, rng: Generator, stages: tuple[Stage, Stage] = REAL_ESRGAN) -> Tensor:
    """Degrade an image twice by blur, resizing, noise and JPEG.

    Args:
        image: (3, H, W) in [0, 1].
        rng: Draws everything that is random, so that the same state gives the same result.

    Returns:
        (3, H, W) in [0, 1], rounded to 8 bits.
    """
    (height, width), (first, second) = image.shape[1:], stages
    x = _add_noise(_blur_and_resize(image, first, (height, width), rng), first, rng)
    x = compress(x, rng.uniform(*first.jpeg_range))
    small = height / SCALE, width / SCALE
    x = _add_noise(_blur_and_resize(x, second, small, rng), second, rng)
    quality = rng.uniform(*second.jpeg_range)
    compresses_last = rng.random() < 0.5
    if not compresses_last:
        x = compress(x, quality)
    x = resize(x, small, _choose(FILTERS, rng))
    if rng.random() < FINAL_SINC_PROB:
        x = blur(x, make_sinc_kernel(rng.uniform(pi / 3, pi), _choose(KERNEL_SIZES, rng)))
    if compresses_last:
        x = compress(x, quality)
    return round_to_bytes(resize(x, (height, width), _choose(FILTERS, rng)))


def reduce_and_enlarge(image: Tensor) -> Tensor:
    """Reduce an image (3, H, W) in [0, 1] by 4 and enlarge it again, both by Pillow's bicubic filter."""
    height, width = image.shape[1:]
    bicubic, small = Image.Resampling.BICUBIC, (width // SCALE, height // SCALE)
    return from_pillow(
        to_pillow(image[None]).resize(small, bicubic).resize((width, height), bicubic)
    )[0]


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """Blur an image (3, H, W) with a kernel (size, size); it is reflected at its edges.

    It is done in the frequency domain, which takes a tenth of the time of 21 x 21 products a pixel.
    The kernels here are the same when turned by 180 degrees, so it is a correlation as well.
    """
    (height, width), margin = image.shape[1:], len(kernel) // 2
    # Reflection needs more pixels than the margin, which only crops below 74 pixels may lack.
    mode = "reflect" if margin < min(height, width) else "replicate"
    padded = F.pad(image[None], (margin,) * 4, mode)[0]
    size = padded.shape[1:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(kernel, size)
    return torch.fft.irfft2(spectrum, size)[:, 2 * margin :, 2 * margin :]


def resize(image: Tensor, size: tuple[float, float], kind: str) -> Tensor:
    """Resize an image (3, H, W) to a (height, width) that is rounded down, without antialiasing."""
    height, width = (max(1, int(side)) for side in size)
    return F.interpolate(image[None], (height, width), mode=kind)[0]


def add_gaussian_noise(image: Tensor, sigma: float, gray: bool, rng: Generator) -> Tensor:
    """Add noise with sigma / 255 to an image (3, H, W) in [0, 1]; gray noise is the same in all channels."""
    shape = (1 if gray else 3, *image.shape[1:])
    noise = torch.from_numpy(rng.standard_normal(shape, np.float32))
    return (image + sigma / 255 * noise).clamp(0, 1)


def add_poisson_noise(image: Tensor, scale: float, gray: bool, rng: Generator) -> Tensor:
    """Add shot noise times ``scale`` to an image (3, H, W) in [0, 1]; gray noise is the same in all channels.

    White is as many photons as the image has different 8-bit values, rounded up to a power of 2.
    """
    clean = (image * image.new_tensor(LUMA).view(3, 1, 1)).sum(0, keepdim=True) if gray else image
    clean = round_to_bytes(clean)
    photons = 2 ** ceil(log2(len(clean.unique())))
    counted = torch.from_numpy(rng.poisson(clean.numpy() * photons)).float() / photons
    return (image + scale * (counted - clean)).clamp(0, 1)


def compress(image: Tensor, quality: float) -> Tensor:
    """Compress an image (3, H, W) in [0, 1] to JPEG and read it again."""
    file = encode(to_pillow(image[None]), "jpeg", quality=round(quality))
    return from_pillow(Image.open(io.BytesIO(file)))[0]


def round_to_bytes(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


def _blur_and_resize(
    image: Tensor, stage: Stage, size: tuple[float, float], rng: Generator
) -> Tensor:
    """Blur an image and resize it to about ``size``."""
    if rng.random() < stage.blur_prob:
        image = blur(image, draw_kernel(stage, rng))
    low, high = stage.resize_range
    ranges = {"up": (1, high), "down": (low, 1), "keep": (1, 1)}
    scale = rng.uniform(*ranges[_choose(list(ranges), rng, stage.resize_prob)])
    return resize(image, (size[0] * scale, size[1] * scale), _choose(FILTERS, rng))


def draw_kernel(stage: Stage, rng: Generator) -> Tensor:
    """Draw a blur kernel (size, size)."""
    size = _choose(KERNEL_SIZES, rng)
    if rng.random() < stage.sinc_prob:
        return make_sinc_kernel(rng.uniform(pi / 3 if size < 13 else pi / 5, pi), size)
    kind = _choose(stage.kernel_list, rng, stage.kernel_prob)
    sigma_x = sigma_y = rng.uniform(*stage.blur_sigma)
    angle, beta = 0.0, 1.0
    if kind.endswith("aniso"):
        sigma_y, angle = rng.uniform(*stage.blur_sigma), rng.uniform(-pi, pi)
    shape = kind.rpartition("_")[0] or "gaussian"
    if shape != "gaussian":
        low, high = stage.betap_range if shape == "plateau" else stage.betag_range
        beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    return make_bell_kernel(shape, size, sigma_x, sigma_y, angle, beta)


def _add_noise(image: Tensor, stage: Stage, rng: Generator) -> Tensor:
    is_gaussian = rng.random() < stage.gaussian_noise_prob
    gray = rng.random() < stage.gray_noise_prob
    if is_gaussian:
        return add_gaussian_noise(image, rng.uniform(*stage.noise_range), gray, rng)
    return add_poisson_noise(image, rng.uniform(*stage.poisson_scale_range), gray, rng)


def _choose(values: Sequence[Any], rng: Generator, chances: Sequence[float] | None = None) -> Any:
    return values[rng.choice(len(values), p=chances)]
