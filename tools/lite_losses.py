"""What the built-in models are trained for, beside the pixels: no grid, texture, agreement."""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 4
TOLERATED = (4.5 / 255) ** 2
"""Squared difference between the input and the result reduced to it (35 dB) that costs little."""
LOG_VARIANCE = (4.3, 6.2)
"""Of the Laplacian in grey levels: 74 to 490, inside what photographs have."""
KURTOSIS = 7.0
LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
NEIGHBOURS = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)


def laplacian(image: Tensor) -> Tensor:
    """Of the luma in grey levels, without the border."""
    luma = (image * LUMA.to(image)).sum(1, keepdim=True) * 255
    return F.conv2d(luma, NEIGHBOURS.to(image))


def moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Log variance and kurtosis of each picture's Laplacian."""
    values = laplacian(image).flatten(1)
    values = values - values.mean(1, keepdim=True)
    variance = values.square().mean(1) + 1e-3
    return variance.log(), values.pow(4).mean(1) / variance.square()


def texture_loss(sr: Tensor) -> Tensor:
    """Zero where each quarter varies, and the whole is spread, as in photographs."""
    b, c, h, w = sr.shape
    quarters = sr.view(b, c, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
    log_variance, _ = moments(quarters)
    _, kurtosis = moments(sr)
    low, high = LOG_VARIANCE
    outside = F.relu(low - log_variance) + F.relu(log_variance - high)
    return outside.mean() + F.relu(1 - kurtosis / KURTOSIS).mean()


def uneven(values: Tensor) -> Tensor:
    """How much the energy of `values` (B, H, W) depends on the column's place in a block of 4."""
    b, h, w = values.shape
    energy = values.view(b, 2, h // 2, 2, w // 8, 4).square().mean((2, 4)) + 1e-8
    return (energy / energy.mean(-1, keepdim=True) - 1).square().mean()


def grid_loss(sr: Tensor) -> Tensor:
    """Steps and stripes locked to the LR pixels: what a pixel shuffle leaves."""
    channels = sr.flatten(0, 1)
    loss = sr.new_zeros(())
    for image in (channels, channels.mT):
        step = F.pad(image[..., 1:] - image[..., :-1], (0, 1))
        b, h, w = step.shape
        # along the edge of a block the mean drowns the texture and leaves the staircase
        stairs = step.view(b, h // 4, 4, w).mean(2)
        loss = loss + uneven(step) + uneven(stairs)
    return loss


def agreement_loss(sr: Tensor, lq: Tensor) -> Tensor:
    """The result reduced by 4 shows its input, up to a tolerance that leaves room to invent."""
    error = (F.avg_pool2d(sr, BLOCK) - lq).square().mean((1, 2, 3)) / TOLERATED
    outside = F.relu(sr - 1) + F.relu(-sr)
    return (0.1 * error + F.relu(error - 1)).mean() + 100 * outside.square().mean()


def high_pass(image: Tensor) -> Tensor:
    """What the discriminator sees: luma up to about 16 pixels wide, whatever the lighting."""
    luma = (image * LUMA.to(image)).sum(1, keepdim=True)
    low = F.interpolate(F.avg_pool2d(luma, 16), scale_factor=16, mode="bilinear")
    return (luma - low) * 5


def chroma(image: Tensor) -> Tensor:
    return image - (image * LUMA.to(image)).sum(1, keepdim=True)


def chroma_loss(sr: Tensor, lq: Tensor) -> Tensor:
    """Colour is interpolated, not invented: a speck of it becomes a square two zooms later."""
    smooth = F.interpolate(lq, scale_factor=BLOCK, mode="bicubic")
    return (chroma(sr) - chroma(smooth)).abs().mean()
