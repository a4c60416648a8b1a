"""Make the training images of the built-in models: CC0 and public-domain photographs, and drawings."""

import io
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from skimage import data as samples
from torch import Tensor

from .backgrounds import read_backgrounds
from .net import SCALE

HELD_OUT = ("astronaut", "rocket", "perched-osprey", "beacon-street-sunset", "tea-gardens")
"""Photographs for the scores, chosen before any result was seen. `moon` and `text` are not used for
training either, because the chains that scoring.py measures show parts of them."""

SHARP_SCALES = {
    # scikit-image: images whose docstring states CC0 or public domain
    "astronaut": 1.0,
    "rocket": 1.0,
    "brick": 1.0,
    "camera": 1.0,
    "chelsea": 1.0,
    "coffee": 1.0,
    "grass": 1.0,
    "gravel": 1.0,
    "hubble_deep_field": 0.8,
    "retina": 0.5,
    # the Debian package budgie-backgrounds, all of it CC0
    "beacon-street-sunset": 0.5,
    "blue-periwinkle": 0.5,
    "canyon-wren": 0.5,
    "casa-mila": 0.5,
    "extreme-desert-hike": 0.5,
    "high-trestle-trail": 0.5,
    "lake-sherburne": 0.5,
    "oakland-zoo-otters": 0.5,
    "perched-osprey": 0.5,
    "piazza-gae-aulenti": 0.5,
    "roman-colosseum": 0.5,
    "saturnian-profile": 0.5,
    "singaporean-cityscape": 0.5,
    "tea-gardens": 0.5,
}
"""Name of each photograph -> the scale at which its pixels are sharp."""
PHOTOGRAPHS = tuple(name for name in SHARP_SCALES if name not in HELD_OUT)
REDUCTIONS = (1.0, 0.8, 0.64, 0.5, 0.4)
"""Factors by which the sharp photographs are downscaled further."""
MIN_SIDE_PIXELS = 256
MAX_SIDE_PIXELS = 1024
SYNTHETIC_SIDE_PIXELS = 256


class Pair(NamedTuple):
    """An image, and the same image downscaled 4x by Pillow's bicubic filter, both (3, H, W) uint8."""

    hr: Tensor
    lr: Tensor


@cache
def read_picture(name: str) -> Image.Image:
    """Read a photograph of `SHARP_SCALES`, or any image of scikit-image, as RGB."""
    if "-" in name:
        return Image.open(io.BytesIO(read_backgrounds()[name])).convert("RGB")
    return Image.fromarray(np.asarray(getattr(samples, name)())).convert("RGB")


def read_sharp_picture(name: str) -> Image.Image:
    """Read a photograph at the scale at which its pixels are sharp."""
    image, scale = read_picture(name), SHARP_SCALES[name]
    return image if scale == 1 else image.reduce(round(1 / scale))


def crop_to_multiple(image: Image.Image, multiple: int = SCALE) -> Image.Image:
    width, height = image.size
    return image.crop((0, 0, width - width % multiple, height - height % multiple))


def downscale(image: Image.Image, factor: int = SCALE) -> Image.Image:
    width, height = image.size
    return image.resize((width // factor, height // factor), Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def make_pair(image: Image.Image) -> Pair:
    image = crop_to_multiple(image)
    return Pair(to_tensor(image), to_tensor(downscale(image)))


def recolor(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change exposure, contrast and tint at random, so that few photographs give many colors."""
    pixels = np.asarray(image, np.float32) / 255
    pixels = pixels ** rng.uniform(0.6, 1.6)
    low, high = rng.uniform(0, 0.35), rng.uniform(0.65, 1)
    tint = rng.uniform(0.8, 1, 3).astype(np.float32)
    pixels = (low + (high - low) * pixels) * tint
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def make_photograph_variants(rng: np.random.Generator, variants: int) -> list[Image.Image]:
    """Make variants of every photograph at several sizes, sub-pixel offsets and exposures."""
    images = []
    for name in PHOTOGRAPHS:
        original, sharp = read_picture(name), SHARP_SCALES[name]
        for reduction in REDUCTIONS:
            scale = sharp * reduction
            width, height = (
                min(int((side - 8) * scale), MAX_SIDE_PIXELS) for side in original.size
            )
            if min(width, height) < MIN_SIDE_PIXELS:
                continue
            for variant in range(variants):
                x = rng.uniform(0, original.width - width / scale)
                y = rng.uniform(0, original.height - height / scale)
                kind = Image.Resampling.LANCZOS if variant % 2 else Image.Resampling.BOX
                box = (x, y, x + width / scale, y + height / scale)
                image = (
                    original.crop((round(x), round(y), round(x) + width, round(y) + height))
                    if scale == 1
                    else original.resize((width, height), kind, box)
                )
                images.append(recolor(image, rng) if variant else image)
    return images


def choose_random_color(rng: np.random.Generator) -> tuple[int, int, int]:
    gray = rng.uniform(0, 255)
    r, g, b = np.clip(gray + rng.normal(0, rng.choice([0, 12, 50]), 3), 0, 255).astype(int)
    return int(r), int(g), int(b)


def draw_gradient(side: int, rng: np.random.Generator) -> Image.Image:
    """Blend two colors over a smooth ramp, straight or bent."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-2, 2, 3)
    ramp = x * np.cos(angle) + y * np.sin(angle) + bend[0] * x * y + bend[1] * x**2 + bend[2] * y**2
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)
    first, second = np.array(choose_random_color(rng)), np.array(choose_random_color(rng))
    return Image.fromarray((first + (second - first) * ramp[..., None]).round().astype(np.uint8))


def make_fractal_noise(side: int, rng: np.random.Generator) -> np.ndarray:
    """Make noise with a spectrum of 1/f^a and a standard deviation of 1, (side, side)."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    exponent = rng.uniform(0.8, 2.2)
    grain = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency**exponent)
    return grain / grain.std()


def draw_noise_texture(side: int, rng: np.random.Generator) -> Image.Image:
    """Draw a random texture that looks like clouds, stone or skin."""
    grain = make_fractal_noise(side, rng)
    if rng.random() < 0.4:
        grain = np.abs(grain) * 2 - 1.5  # creases, as in marble and cloth folds
    tint = rng.normal(1, 0.15, 3)
    base = np.array(choose_random_color(rng), np.float32)
    pixels = base + grain[..., None] * tint * rng.uniform(5, 45)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def draw_stripes(side: int, rng: np.random.Generator) -> Image.Image:
    """Draw bent lines or a lattice, like cloth, grilles or planks."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    wave = np.zeros((side, side), np.float32)
    for _ in range(rng.integers(1, 3)):
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 40)
        bend = (
            rng.uniform(0, 12) * np.sin(x / rng.uniform(20, 90)) * np.cos(y / rng.uniform(20, 90))
        )
        phase = (x * np.cos(angle) + y * np.sin(angle) + bend) * 2 * np.pi / period
        wave += np.clip(np.sin(phase) * rng.uniform(1, 8), -1, 1)
    first, second = np.array(choose_random_color(rng)), np.array(choose_random_color(rng))
    share = (wave - wave.min()) / (np.ptp(wave) + 1e-6)
    return Image.fromarray((first + (second - first) * share[..., None]).round().astype(np.uint8))


def draw_shape(canvas: Image.Image, radius: float, rng: np.random.Generator) -> None:
    """Draw one "leaf" of `draw_dead_leaves`: a disc, a polygon or a stroke, plain or with a texture."""
    side = canvas.width
    x, y = rng.uniform(0, side, 2)
    mask = Image.new("L", canvas.size)
    pen = ImageDraw.Draw(mask)
    kind = rng.random()
    if kind < 0.4:
        squeeze = rng.uniform(0.4, 1)
        pen.ellipse((x - radius, y - radius * squeeze, x + radius, y + radius * squeeze), fill=255)
    elif kind < 0.8:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
        points = np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], 1)
        pen.polygon([tuple(point) for point in points], fill=255)
    else:
        angle = rng.uniform(0, np.pi)
        dx, dy = 2 * radius * np.cos(angle), 2 * radius * np.sin(angle)
        width = max(1, round(radius * rng.uniform(0.05, 0.3)))
        pen.line((x - dx, y - dy, x + dx, y + dy), fill=255, width=width)
    if radius > side / 12 and rng.random() < 0.7:
        fill = [draw_gradient, draw_noise_texture, draw_stripes][rng.integers(3)](side, rng)
        canvas.paste(fill, (0, 0), mask)
    else:
        canvas.paste(choose_random_color(rng), (0, 0), mask)


def draw_dead_leaves(side: int, rng: np.random.Generator) -> Image.Image:
    """Draw overlapping shapes of power-law sizes, which have the edges and occlusions of photographs."""
    canvas = draw_gradient(2 * side, rng)
    for _ in range(rng.integers(40, 160)):
        draw_shape(canvas, side * min(0.5, 0.015 * (rng.pareto(1.3) + 1)), rng)
    if rng.random() < 0.4:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
    return canvas.resize((side, side), Image.Resampling.BOX)


def draw_written_text(side: int, rng: np.random.Generator) -> Image.Image:
    """Draw lines of letters, rotated and blurred at random, on plain ground or on a texture."""
    large = 2 * side
    canvas = [draw_gradient, draw_gradient, draw_noise_texture][rng.integers(3)](large, rng)
    mask = Image.new("L", canvas.size)
    pen = ImageDraw.Draw(mask)
    letters = np.array(
        list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789,.;:()&=")
    )
    y = float(rng.uniform(-20, 10))
    while y < large:
        size = int(rng.integers(16, 110))
        words = ["".join(rng.choice(letters, rng.integers(1, 10))) for _ in range(10)]
        font = ImageFont.load_default(size)
        pen.text((rng.uniform(-60, 10), y), " ".join(words), fill=255, font=font)
        y += size * rng.uniform(1, 1.5)
    mask = mask.rotate(rng.choice([0, 0, rng.uniform(-15, 15)]), Image.Resampling.BICUBIC)
    canvas.paste(choose_random_color(rng), (0, 0), mask)
    if rng.random() < 0.7:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
    return canvas.resize((side, side), Image.Resampling.BOX)


DRAWING_SHARES: dict[Callable[[int, np.random.Generator], Image.Image], float] = {
    draw_dead_leaves: 0.5,
    draw_written_text: 0.3,
    draw_noise_texture: 0.08,
    draw_stripes: 0.08,
    draw_gradient: 0.04,
}
"""Function that draws one kind of image -> the kind's share of all drawings."""


def make_synthetic_images(rng: np.random.Generator, count: int) -> list[Image.Image]:
    kinds = rng.choice(np.array(list(DRAWING_SHARES)), count, p=list(DRAWING_SHARES.values()))
    return [recolor(draw(SYNTHETIC_SIDE_PIXELS, rng), rng) for draw in kinds]


def turn_patch(patch: Tensor, turn: int) -> Tensor:
    """Apply one of the eight symmetries of the square, numbered 0 to 7."""
    patch = torch.rot90(patch, turn % 4, (-2, -1))
    return patch.flip(-1) if turn >= 4 else patch


def sample_patches(
    pairs: list[Pair], rng: np.random.Generator, batch: int, side: int, weights: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Cut random patches out of pairs, rotated, mirrored and recolored at random.

    Of two random places in an image the one with more contrast is taken, because much of a
    photograph is empty.

    Returns:
        lr (B, 3, side, side) and hr, four times as large, both float32 in [0, 1].
    """
    lrs, hrs = [], []
    for index in rng.choice(len(pairs), batch, p=weights):
        hr, lr = pairs[index]
        places = rng.integers(0, np.array(lr.shape[1:]) - side + 1, (2, 2)).tolist()
        y, x = max(places, key=lambda yx: lr[:, yx[0] :, yx[1] :][:, :side, :side].float().var())
        turn = int(rng.integers(8))
        colors = torch.from_numpy(rng.permutation(3))
        lr = turn_patch(lr[:, y : y + side, x : x + side], turn)[colors]
        y, x, large = y * SCALE, x * SCALE, side * SCALE
        hr = turn_patch(hr[:, y : y + large, x : x + large], turn)[colors]
        if rng.random() < 0.2:
            lr, hr = 255 - lr, 255 - hr
        lrs.append(lr)
        hrs.append(hr)
    return torch.stack(lrs).float() / 255, torch.stack(hrs).float() / 255


def crop_randomly(image: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """Cut a random square out of a (3, H, W) image."""
    y, x = (int(rng.integers(0, length - side + 1)) for length in image.shape[1:])
    return image[:, y : y + side, x : x + side].contiguous()


def apply_jpeg(image: Image.Image, quality: int, chroma: int = 2) -> Image.Image:
    """Save an image as JPEG of this quality and read it again; ``chroma`` is Pillow's `subsampling`."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=chroma)
    return Image.open(file).convert("RGB")


def apply_random_jpeg(
    patch: Tensor, rng: np.random.Generator, qualities: tuple[int, int]
) -> Tensor:
    """Apply JPEG of a random quality to a (3, H, W) patch, with its 8-pixel blocks at a random offset."""
    y, x = rng.integers(0, 8, 2)
    padded = F.pad(patch[None], (x, 0, y, 0), mode="replicate")[0]
    image = Image.fromarray((padded * 255).round().byte().permute(1, 2, 0).numpy())
    kept = apply_jpeg(image, int(rng.integers(*qualities)), int(rng.choice([0, 2])))
    return to_tensor(kept)[:, y:, x:].float() / 255
