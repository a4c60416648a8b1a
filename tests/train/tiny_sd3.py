"""A random SD3 of two blocks in the layout of diffusers, a random VGG16, and a data set of noise."""

import json
from itertools import pairwise
from pathlib import Path

import torch
import yaml
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file

from coz.render.pillow import to_pillow
from tests.support.random_sd3 import autoencoder, sd3_transformer
from tests.support.small_models import WIDTH
from tools.train_sr.config import DistilConfig
from tools.train_sr.dataset import find_text_file

SIDE = 32
VGG16_LAYERS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Numbers of the convolutions in torchvision's `vgg16().features`."""
WIDTHS = (3, 64, 64, 128, 128, *[256] * 3, *[512] * 6)


def save_tiny_sd3(folder: Path) -> Path:
    vae = autoencoder(width=WIDTH)
    vae.register_to_config(scaling_factor=1.5305, shift_factor=0.0609)
    sd3_transformer(2).save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    return folder


def save_vgg16(path: Path) -> Path:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for layer, (before, after) in zip(VGG16_LAYERS, pairwise(WIDTHS), strict=True):
        weight = torch.randn(after, before, 3, 3, generator=generator)
        weights[f"features.{layer}.weight"] = weight * (2 / (9 * before)) ** 0.5
        weights[f"features.{layer}.bias"] = torch.zeros(after)
    torch.save(weights, path)
    return path


def save_crops(folder: Path, count: int = 6, side: int = SIDE) -> Path:
    """Crops as `prepare` writes them; the last is held out."""
    generator = torch.Generator().manual_seed(1)
    for name in ("crops", "texts"):
        (folder / name).mkdir(parents=True)
    crops = []
    for i in range(count):
        image = torch.rand(1, 3, side // 4, side // 4, generator=generator)
        image = torch.nn.functional.interpolate(image, size=(side, side), mode="bicubic")
        to_pillow(image).save(folder / "crops" / f"{i}.png")
        text = torch.randn(5, 4096, generator=generator) * 0.3
        pooled = torch.randn(2048, generator=generator) * 0.3
        save_file({"text": text, "pooled": pooled}, find_text_file(folder, f"text {i}"))
        crop = {"name": f"photo#{i}", "file": f"{i}.png", "prompt": f"text {i}"}
        crops.append(crop | {"held_out": i == count - 1})
    (folder / "crops.json").write_text(json.dumps({"texts": True, "crops": crops}))
    (folder / "prepare.json").write_text(json.dumps({"size": side, "seed": 0}))
    return folder


def write_config(path: Path, parts: dict[str, Path], **changes) -> Path:
    settings = {name: str(part) for name, part in parts.items()}
    settings |= {"out": path.stem, "text_cached": True, "degradation": "4x", "precision": "fp32"}
    settings |= {"steps": 3, "accumulation": 2, "workers": 0, "preview_every": 0, "save_every": 2}
    path.write_text(yaml.safe_dump(settings | {"learning_rate": 0.01} | changes))
    return path


def make_config(folder: Path, parts: dict[str, Path], **changes) -> DistilConfig:
    from tools.train_grpo.config import read_config

    return read_config(write_config(folder / "run.yaml", parts, **changes), DistilConfig)
