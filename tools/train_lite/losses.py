"""What the built-in models are trained for, beside the pixels: no grid, texture, agreement."""

import torch
import torch.nn.functional as F
from torch import Tensor

from coz.color.align import luma

BLOCK = 4
TOLERATED = (2.5 / 255) ** 2
"""Squared difference between the input and the result reduced to it (40 dB) that costs little.
More makes blotches of skin and sky."""
LOG_VARIANCE = (4.2, 6.0)
"""Of the Laplacian in grey levels: 67 to 400, inside what photographs have."""
KURTOSIS = 6.0
PLACE, LOCAL = 16, 4.5
"""Pixels of a small place, and the kurtosis there: fur, gravel and grass have 3 to 5."""
WINDOW = 32
ROUNDING = WINDOW**2 * (3 / 8) ** 2 / 12
"""Power of 8-bit rounding at each frequency of a Hann window: less is nothing."""
NEIGHBOURS = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)


def laplacian(image: Tensor) -> Tensor:
    """Of the luma in grey levels, without the border."""
    return F.conv2d(luma(image) * 255, NEIGHBOURS.to(image))


def moments(laplacians: Tensor) -> tuple[Tensor, Tensor]:
    """Log variance and kurtosis of each."""
    values = laplacians.flatten(1)
    values = values - values.mean(1, keepdim=True)
    variance = values.square().mean(1) + 1e-3
    return variance.log(), values.pow(4).mean(1) / variance.square()


def tiles(image: Tensor, side: int) -> Tensor:
    """The Laplacian of every square of this side."""
    values = laplacian(F.pad(image, (1, 1, 1, 1), mode="replicate"))
    return values.unfold(2, side, side).unfold(3, side, side).flatten(0, 3)


def texture_loss(sr: Tensor) -> Tensor:
    """Zero where the texture is as strong, as spread and as unevenly strong as in photographs.

    Those are heavy-tailed as a whole because here is more and there is less, and nearly gaussian
    in each small place; a network left to choose gets there with pinholes and cracks everywhere.
    """
    low, high = LOG_VARIANCE
    log_variance, kurtosis = moments(laplacian(sr))
    quarter, _ = moments(tiles(sr, sr.shape[-1] // 2))
    outside = F.relu(low - log_variance) + F.relu(log_variance - high)
    _, local = moments(tiles(sr, PLACE))
    spread = F.relu(1 - kurtosis / KURTOSIS).mean() + 0.5 * F.relu((local / LOCAL).log()).mean()
    return outside.mean() + F.relu(low - 1 - quarter).mean() + spread


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


def repetition(image: Tensor) -> tuple[Tensor, Tensor]:
    """By how much periods stand out of the spectra of small windows, in nepers of power.

    That of the LR pixels, and the mean over all up to 8 pixels. Local, because a lattice is dark
    here and bright there and has no mean over a picture. Chance peaks of less than 1 do not count.
    """
    windows = (luma(image) * 255).unfold(2, WINDOW, WINDOW // 2).unfold(3, WINDOW, WINDOW // 2)
    windows = windows - windows.mean((-2, -1), keepdim=True)
    hann = torch.hann_window(WINDOW).to(image)
    spectra = torch.fft.fft2(windows * hann[:, None] * hann).abs().square() + ROUNDING
    spectra = spectra.flatten(0, 3)[:, None]
    wrapped = F.pad(spectra, (4, 4, 4, 4), mode="circular")
    near = F.avg_pool2d(wrapped[..., 2:-2, 2:-2], 5, 1) * 5**2
    around = (F.avg_pool2d(wrapped, 9, 1) * 9**2 - near) / (9**2 - 5**2)
    peaks = F.relu((spectra / around).log() - 1)[:, 0]
    harmonics = peaks[:, :: WINDOW // BLOCK, :: WINDOW // BLOCK].flatten(1)[:, 1:]
    frequency = torch.fft.fftfreq(WINDOW).abs().to(image)
    short = torch.maximum(frequency[:, None], frequency) > 1 / 8
    return harmonics.mean(), peaks[:, short].mean()


def agreement_loss(sr: Tensor, lq: Tensor) -> Tensor:
    """The result reduced by 4 shows its input; a tolerance leaves room to invent."""
    error = (F.avg_pool2d(sr, BLOCK) - lq).square().mean((1, 2, 3)) / TOLERATED
    outside = F.relu(sr - 1) + F.relu(-sr)
    return (0.1 * error + F.relu(error - 1)).mean() + 100 * outside.square().mean()


def high_pass(image: Tensor) -> Tensor:
    """What the discriminator sees: luma up to about 16 pixels wide, whatever light and contrast.

    How strong the texture may be is `texture_loss`'s business: a sky is no gravel.
    """
    light = luma(image)
    low = F.interpolate(F.avg_pool2d(light, 16), scale_factor=16, mode="bilinear")
    contrast = (moments(laplacian(image))[0] / 2).exp().view(-1, 1, 1, 1) / 255
    return 2 * (light - low) / contrast


def chroma(image: Tensor) -> Tensor:
    return image - luma(image)


def chroma_loss(sr: Tensor, lq: Tensor) -> Tensor:
    """Colour is interpolated, not invented: a speck of it becomes a square two zooms later."""
    smooth = F.interpolate(lq, scale_factor=BLOCK, mode="bicubic")
    return (chroma(sr) - chroma(smooth)).abs().mean()
