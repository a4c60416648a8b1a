"""Noise for an image that is sampled in tiles."""

from math import ceil

import torch
from torch import Tensor

from ..latent import SIDE_MULTIPLE_PIXELS


class NoiseField:
    """Gaussian noise for the latent of a whole image. Each tile uses its window of the noise.

    Where tiles overlap they get the same noise, in whatever order they are sampled. This is exact if tiles
    start at multiples of the VAE's reduction; other starts are rounded to the nearest latent pixel.
    """

    def __init__(self, height: int, width: int, seed: int) -> None:
        """Store the size. The noise is drawn for the first latent, which shows the number of channels.

        Args:
            height: Height of the image, in pixels.
            width: Width of the image, in pixels.
            seed: Seed of the noise.
        """
        self.height = height
        self.width = width
        self.seed = seed
        self._field: Tensor | None = None

    def cut_window(self, latent: Tensor, x: float, y: float, reduction: int) -> Tensor:
        """Cut out the noise for a tile.

        Args:
            latent: The tile's latent, used for its shape: (1, C, h, w), or (1, C, 1, h, w) of a video
                VAE.
            x: Left edge of the tile in the image, in pixels.
            y: Upper edge of the tile, in pixels.
            reduction: Image pixels per latent pixel, the same for all tiles.

        Returns:
            A float32 copy of one region, on the CPU, in the latent's shape.
        """
        if self._field is None:
            # The maximum padding of a tile, and the rounding of its start to a latent pixel.
            padding = max(SIDE_MULTIPLE_PIXELS, 2 * reduction) + reduction
            rows, columns = (
                ceil((side + padding) / reduction) for side in (self.height, self.width)
            )
            generator = torch.Generator().manual_seed(self.seed)
            self._field = torch.randn(latent.shape[1], rows, columns, generator=generator)
        top, left = round(y / reduction), round(x / reduction)
        rows, columns = latent.shape[-2:]
        region = self._field[:, top : top + rows, left : left + columns]
        return region.reshape(latent.shape).clone()
