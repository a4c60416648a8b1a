"""Training pictures of the built-in models: CC0 and public-domain photographs, and drawings."""

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
"""Photographs for the scores, chosen before any result was seen. `moon` and `text` are not
trained on either: the chains that scoring.py measures show parts of them."""

SHARP_SCALES = {
    # scikit-image: pictures whose docstring states CC0 or public domain
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
"""Name of each photograph, and the scale at which its pixels are sharp."""
PHOTOGRAPHS = tuple(name for name in SHARP_SCALES if name not in HELD_OUT)
REDUCTIONS = (1.0, 0.8, 0.64, 0.5, 0.4)
SMALLEST_SIDE = 256
LARGEST_SIDE = 1024
SYNTHETIC_SIDE = 256


class Pair(NamedTuple):
    """A picture and its reduction by Pillow's bicubic filter, both (3, H, W) uint8."""

    hr: Tensor
    lr: Tensor


@cache
def picture(name: str) -> Image.Image:
    """Read a photograph of `SHARP_SCALES`, or any picture of scikit-image, as RGB."""
    if "-" in name:
        return Image.open(io.BytesIO(read_backgrounds()[name])).convert("RGB")
    return Image.fromarray(np.asarray(getattr(samples, name)())).convert("RGB")


def sharp_picture(name: str) -> Image.Image:
    """Read a photograph at the scale at which its pixels are sharp."""
    image, scale = picture(name), SHARP_SCALES[name]
    return image if scale == 1 else image.reduce(round(1 / scale))


def crop_to_multiple(image: Image.Image, multiple: int = SCALE) -> Image.Image:
    width, height = image.size
    return image.crop((0, 0, width - width % multiple, height - height % multiple))


def reduced(image: Image.Image, factor: int = SCALE) -> Image.Image:
    width, height = image.size
    return image.resize((width // factor, height // factor), Image.Resampling.BICUBIC)


def to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def make_pair(image: Image.Image) -> Pair:
    image = crop_to_multiple(image)
    return Pair(to_tensor(image), to_tensor(reduced(image)))


def recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Another exposure, contrast and tint, so that few photographs stand for more."""
    pixels = np.asarray(image, np.float32) / 255
    pixels = pixels ** rng.uniform(0.6, 1.6)
    low, high = rng.uniform(0, 0.35), rng.uniform(0.65, 1)
    tint = rng.uniform(0.8, 1, 3).astype(np.float32)
    pixels = (low + (high - low) * pixels) * tint
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def photograph_variants(rng: np.random.Generator, variants: int) -> list[Image.Image]:
    """Every photograph at several sizes, sub-pixel offsets and exposures."""
    images = []
    for name in PHOTOGRAPHS:
        original, sharp = picture(name), SHARP_SCALES[name]
        for reduction in REDUCTIONS:
            scale = sharp * reduction
            width, height = (min(int((side - 8) * scale), LARGEST_SIDE) for side in original.size)
            if min(width, height) < SMALLEST_SIDE:
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
                images.append(recoloured(image, rng) if variant else image)
    return images


def random_colour(rng: np.random.Generator) -> tuple[int, int, int]:
    grey = rng.uniform(0, 255)
    r, g, b = np.clip(grey + rng.normal(0, rng.choice([0, 12, 50]), 3), 0, 255).astype(int)
    return int(r), int(g), int(b)


def gradient(side: int, rng: np.random.Generator) -> Image.Image:
    """Two colours blended over a smooth ramp, linear or bent."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(-2, 2, 3)
    ramp = x * np.cos(angle) + y * np.sin(angle) + bend[0] * x * y + bend[1] * x**2 + bend[2] * y**2
    ramp = (ramp - ramp.min()) / (np.ptp(ramp) + 1e-6)
    first, second = np.array(random_colour(rng)), np.array(random_colour(rng))
    return Image.fromarray((first + (second - first) * ramp[..., None]).round().astype(np.uint8))


def fractal_noise(side: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of spectrum 1/f^a, of unit strength."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    exponent = rng.uniform(0.8, 2.2)
    grain = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency**exponent)
    return grain / grain.std()


def noise_texture(side: int, rng: np.random.Generator) -> Image.Image:
    """A random texture that looks like clouds, stone or skin."""
    grain = fractal_noise(side, rng)
    if rng.random() < 0.4:
        grain = np.abs(grain) * 2 - 1.5  # creases, as in marble and cloth folds
    tint = rng.normal(1, 0.15, 3)
    base = np.array(random_colour(rng), np.float32)
    pixels = base + grain[..., None] * tint * rng.uniform(5, 45)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def stripes(side: int, rng: np.random.Generator) -> Image.Image:
    """Bent lines or a lattice: cloth, grilles, planks."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32)
    wave = np.zeros((side, side), np.float32)
    for _ in range(rng.integers(1, 3)):
        angle, period = rng.uniform(0, np.pi), rng.uniform(5, 40)
        bend = (
            rng.uniform(0, 12) * np.sin(x / rng.uniform(20, 90)) * np.cos(y / rng.uniform(20, 90))
        )
        phase = (x * np.cos(angle) + y * np.sin(angle) + bend) * 2 * np.pi / period
        wave += np.clip(np.sin(phase) * rng.uniform(1, 8), -1, 1)
    first, second = np.array(random_colour(rng)), np.array(random_colour(rng))
    share = (wave - wave.min()) / (np.ptp(wave) + 1e-6)
    return Image.fromarray((first + (second - first) * share[..., None]).round().astype(np.uint8))


def draw_shape(canvas: Image.Image, radius: float, rng: np.random.Generator) -> None:
    """Draw one "leaf" of `dead_leaves`: a disc, a polygon or a stroke, plain or with a texture."""
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
        fill = [gradient, noise_texture, stripes][rng.integers(3)](side, rng)
        canvas.paste(fill, (0, 0), mask)
    else:
        canvas.paste(random_colour(rng), (0, 0), mask)


def dead_leaves(side: int, rng: np.random.Generator) -> Image.Image:
    """Overlapping shapes with power-law sizes: the edges and occlusions of photographs."""
    canvas = gradient(2 * side, rng)
    for _ in range(rng.integers(40, 160)):
        draw_shape(canvas, side * min(0.5, 0.015 * (rng.pareto(1.3) + 1)), rng)
    if rng.random() < 0.4:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
    return canvas.resize((side, side), Image.Resampling.BOX)


def written_text(side: int, rng: np.random.Generator) -> Image.Image:
    """Lines of letters, turned and softened, on paper or on a texture."""
    large = 2 * side
    canvas = [gradient, gradient, noise_texture][rng.integers(3)](large, rng)
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
    canvas.paste(random_colour(rng), (0, 0), mask)
    if rng.random() < 0.7:
        canvas = canvas.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3)))
    return canvas.resize((side, side), Image.Resampling.BOX)


SYNTHETIC: dict[Callable[[int, np.random.Generator], Image.Image], float] = {
    dead_leaves: 0.5,
    written_text: 0.3,
    noise_texture: 0.08,
    stripes: 0.08,
    gradient: 0.04,
}


def synthetic_images(rng: np.random.Generator, count: int) -> list[Image.Image]:
    draw = rng.choice(np.array(list(SYNTHETIC)), count, p=list(SYNTHETIC.values()))
    return [recoloured(make(SYNTHETIC_SIDE, rng), rng) for make in draw]


def turned(patch: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries of the square."""
    patch = torch.rot90(patch, turn % 4, (-2, -1))
    return patch.flip(-1) if turn >= 4 else patch


def sample(
    pairs: list[Pair], rng: np.random.Generator, batch: int, side: int, weights: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Random patches: lr (B, 3, side, side) and hr, four times as large, floats in [0, 1].

    Of two places of a picture the one with more contrast is taken: much of a photograph is empty.
    """
    lrs, hrs = [], []
    for index in rng.choice(len(pairs), batch, p=weights):
        hr, lr = pairs[index]
        places = rng.integers(0, np.array(lr.shape[1:]) - side + 1, (2, 2)).tolist()
        y, x = max(places, key=lambda yx: lr[:, yx[0] :, yx[1] :][:, :side, :side].float().var())
        turn = int(rng.integers(8))
        colours = torch.from_numpy(rng.permutation(3))
        lr = turned(lr[:, y : y + side, x : x + side], turn)[colours]
        y, x, large = y * SCALE, x * SCALE, side * SCALE
        hr = turned(hr[:, y : y + large, x : x + large], turn)[colours]
        if rng.random() < 0.2:
            lr, hr = 255 - lr, 255 - hr
        lrs.append(lr)
        hrs.append(hr)
    return torch.stack(lrs).float() / 255, torch.stack(hrs).float() / 255


def random_crop(image: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """A square of a (3, H, W) image."""
    y, x = (int(rng.integers(0, length - side + 1)) for length in image.shape[1:])
    return image[:, y : y + side, x : x + side].contiguous()


def apply_jpeg(image: Image.Image, quality: int, chroma: int = 2) -> Image.Image:
    """The image as a JPEG file of this quality shows it; ``chroma`` is Pillow's `subsampling`."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, subsampling=chroma)
    return Image.open(file).convert("RGB")


def apply_random_jpeg(
    patch: Tensor, rng: np.random.Generator, qualities: tuple[int, int]
) -> Tensor:
    """Return a (3, H, W) patch as a JPEG file shows it, with its blocks of 8 pixels at any offset."""
    y, x = rng.integers(0, 8, 2)
    padded = F.pad(patch[None], (x, 0, y, 0), mode="replicate")[0]
    image = Image.fromarray((padded * 255).round().byte().permute(1, 2, 0).numpy())
    kept = apply_jpeg(image, int(rng.integers(*qualities)), int(rng.choice([0, 2])))
    return to_tensor(kept)[:, y:, x:].float() / 255
