"""Losses beside the pixel error: against grids, for texture, for agreement with the input."""

import torch
import torch.nn.functional as F
from torch import Tensor

from coz.color.align import luma

BLOCK = 4
TOLERATED_SQUARED_ERROR = (2.5 / 255) ** 2
"""Squared error between the downscaled result and the input (40 dB) up to which the penalty is small.
A larger error turns skin and sky into blotches."""
LOG_VARIANCE = (4.2, 6.0)
"""Range of the Laplacian's log variance (67 to 400 squared grey levels), inside that of photographs."""
KURTOSIS = 6.0
SMALL_TILE_SIDE = 16
MAX_LOCAL_KURTOSIS = 4.5
"""Kurtosis in a small tile: fur, gravel and grass have 3 to 5."""
WINDOW = 32
ROUNDING = WINDOW**2 * (3 / 8) ** 2 / 12
"""Power of 8-bit rounding at each frequency of a Hann window: less is noise."""
LAPLACIAN_KERNEL = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]).view(1, 1, 3, 3)


def laplacian(image: Tensor) -> Tensor:
    """Of the luma in grey levels, without the border."""
    return F.conv2d(luma(image) * 255, LAPLACIAN_KERNEL.to(image))


def moments(laplacians: Tensor) -> tuple[Tensor, Tensor]:
    """Log variance and kurtosis of each."""
    values = laplacians.flatten(1)
    values = values - values.mean(1, keepdim=True)
    variance = values.square().mean(1) + 1e-3
    return variance.log(), values.pow(4).mean(1) / variance.square()


def tile_laplacians(image: Tensor, side: int) -> Tensor:
    """The Laplacian of every square of this side."""
    values = laplacian(F.pad(image, (1, 1, 1, 1), mode="replicate"))
    return values.unfold(2, side, side).unfold(3, side, side).flatten(0, 3)


def texture_loss(sr: Tensor) -> Tensor:
    """Zero where variance and kurtosis of the Laplacian are in the range of photographs.

    Over a whole photograph the Laplacian is heavy-tailed, because texture is strong in some places
    and weak in others; in a small tile it is nearly gaussian. Without the term for small tiles, the
    network reaches the kurtosis by drawing pinholes and cracks everywhere.
    """
    low, high = LOG_VARIANCE
    log_variance, kurtosis = moments(laplacian(sr))
    quarter, _ = moments(tile_laplacians(sr, sr.shape[-1] // 2))
    outside = F.relu(low - log_variance) + F.relu(log_variance - high)
    _, local = moments(tile_laplacians(sr, SMALL_TILE_SIDE))
    spread = (
        F.relu(1 - kurtosis / KURTOSIS).mean()
        + 0.5 * F.relu((local / MAX_LOCAL_KURTOSIS).log()).mean()
    )
    return outside.mean() + F.relu(low - 1 - quarter).mean() + spread


def column_phase_imbalance(values: Tensor) -> Tensor:
    """How much the energy of `values` (B, H, W) depends on a column's position in its block of 4."""
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
        # the mean along a block's edge averages the texture away and leaves the staircase
        stairs = step.view(b, h // 4, 4, w).mean(2)
        loss = loss + column_phase_imbalance(step) + column_phase_imbalance(stairs)
    return loss


def repetition(image: Tensor) -> tuple[Tensor, Tensor]:
    """How far the peaks of periodic patterns rise above the spectrum around them (log of power).

    Return the mean for the period of the LR pixels, and for all periods up to 8 pixels. The windows
    are small because a lattice is dark in one place and bright in another, and would cancel out over
    a picture. Chance peaks of less than 1 do not count.
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
    """Penalize a result that, reduced by 4, differs from its input; a tolerance leaves room to invent."""
    error = (F.avg_pool2d(sr, BLOCK) - lq).square().mean((1, 2, 3)) / TOLERATED_SQUARED_ERROR
    outside = F.relu(sr - 1) + F.relu(-sr)
    return (0.1 * error + F.relu(error - 1)).mean() + 100 * outside.square().mean()


def high_pass(image: Tensor) -> Tensor:
    """What the discriminator sees: detail finer than about 16 pixels, at equal light and contrast.

    How strong texture may be is up to `texture_loss`: it differs between a sky and gravel.
    """
    light = luma(image)
    low = F.interpolate(F.avg_pool2d(light, 16), scale_factor=16, mode="bilinear")
    contrast = (moments(laplacian(image))[0] / 2).exp().view(-1, 1, 1, 1) / 255
    return 2 * (light - low) / contrast


def chroma(image: Tensor) -> Tensor:
    return image - luma(image)


def chroma_loss(sr: Tensor, lq: Tensor) -> Tensor:
    """Colour is interpolated, not invented: two steps enlarge a speck of it to a coloured square."""
    smooth = F.interpolate(lq, scale_factor=BLOCK, mode="bicubic")
    return (chroma(sr) - chroma(smooth)).abs().mean()
