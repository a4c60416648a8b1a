"""Images for tests: noise, the photographs of the pack, and what spoils them."""

import torch
import torchvision
from PIL import Image
from torch import Tensor

from coz.render.pillow import from_pillow
from tools.host import ROOT


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def read_photo(name: str = "astronaut.png") -> Tensor:
    with Image.open(ROOT / "pictures" / name) as file:
        return from_pillow(file.convert("RGB"))


def blur(image: Tensor, sigma: float) -> Tensor:
    size = 2 * int(3 * sigma) + 3
    return torchvision.transforms.functional.gaussian_blur(image, size, sigma).clamp(0, 1)


def add_noise(image: Tensor, spread: float, seed: int = 0) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + spread * noise).clamp(0, 1)
