"""Compute losses that penalize lattices, the periodic patterns that a network may draw."""

import torch
import torch.nn.functional as F
from torch import Tensor

from coz.color.align import compute_luma

BLOCK_PIXELS = 4
WINDOW_PIXELS = 32
ROUNDING = WINDOW_PIXELS**2 * (3 / 8) ** 2 / 12
"""Power of 8-bit rounding at each frequency of a Hann window. Weaker patterns cannot be told from noise."""


def measure_column_phase_imbalance(values: Tensor) -> Tensor:
    """Measure how much the energy of `values` (B, H, W) depends on a column's position in its block of 4."""
    b, h, w = values.shape
    energy = values.view(b, 2, h // 2, 2, w // 8, 4).square().mean((2, 4)) + 1e-8
    return (energy / energy.mean(-1, keepdim=True) - 1).square().mean()


def compute_grid_loss(sr: Tensor) -> Tensor:
    """Compute the strength of steps and stripes on the grid of LR pixels, which a pixel shuffle may leave."""
    channels = sr.flatten(0, 1)
    loss = sr.new_zeros(())
    for image in (channels, channels.mT):
        step = F.pad(image[..., 1:] - image[..., :-1], (0, 1))
        b, h, w = step.shape
        # The mean along the edge of a block removes texture and keeps the staircase.
        stairs = step.view(b, h // 4, 4, w).mean(2)
        loss = loss + measure_column_phase_imbalance(step) + measure_column_phase_imbalance(stairs)
    return loss


def measure_repetition(image: Tensor) -> tuple[Tensor, Tensor]:
    """Measure how far the peaks of periodic patterns rise above the spectrum around them.

    The height of a peak is log(its power / the power around it). Small windows are used, because a
    lattice that is dark in one place and bright in another would cancel out over a whole image. Only the
    part of a height above 1 counts, because smaller peaks arise by chance.

    Args:
        image: (B, 3, H, W) in [0, 1].

    Returns:
        Two values, each the mean of max(height - 1, 0) over windows and frequencies: the frequencies of
        the grid of LR pixels, and all frequencies with a period below 8 pixels.
    """
    windows = (
        (compute_luma(image) * 255)
        .unfold(2, WINDOW_PIXELS, WINDOW_PIXELS // 2)
        .unfold(3, WINDOW_PIXELS, WINDOW_PIXELS // 2)
    )
    windows = windows - windows.mean((-2, -1), keepdim=True)
    hann = torch.hann_window(WINDOW_PIXELS).to(image)
    spectra = torch.fft.fft2(windows * hann[:, None] * hann).abs().square() + ROUNDING
    spectra = spectra.flatten(0, 3)[:, None]
    wrapped = F.pad(spectra, (4, 4, 4, 4), mode="circular")
    near = F.avg_pool2d(wrapped[..., 2:-2, 2:-2], 5, 1) * 5**2
    around = (F.avg_pool2d(wrapped, 9, 1) * 9**2 - near) / (9**2 - 5**2)
    peaks = F.relu((spectra / around).log() - 1)[:, 0]
    harmonics = peaks[
        :, :: WINDOW_PIXELS // BLOCK_PIXELS, :: WINDOW_PIXELS // BLOCK_PIXELS
    ].flatten(1)[:, 1:]
    frequency = torch.fft.fftfreq(WINDOW_PIXELS).abs().to(image)
    short = torch.maximum(frequency[:, None], frequency) > 1 / 8
    return harmonics.mean(), peaks[:, short].mean()
