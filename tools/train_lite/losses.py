"""Losses beside the pixel error: against lattices."""

import torch
import torch.nn.functional as F
from torch import Tensor

from coz.color.align import compute_luma

BLOCK = 4
WINDOW = 32
ROUNDING = WINDOW**2 * (3 / 8) ** 2 / 12
"""Power of 8-bit rounding at each frequency of a Hann window: less is noise."""


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
    windows = (
        (compute_luma(image) * 255).unfold(2, WINDOW, WINDOW // 2).unfold(3, WINDOW, WINDOW // 2)
    )
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
