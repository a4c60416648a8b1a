"""Noise for a picture that is sampled in tiles."""

from math import ceil

import torch
from torch import Tensor

from ..latent import SIDE_MULTIPLE_PIXELS


class NoiseField:
    """Normal noise for the latent of a whole picture, of which each tile takes its own window.

    Where two tiles overlap they start from the same noise, in whatever order they come. That is
    exact for tiles that begin a multiple of the VAE's reduction apart; others take the nearest
    latent pixel.
    """

    def __init__(self, height: int, width: int, seed: int) -> None:
        """Draw nothing yet: the number of channels is known with the first latent.

        Args:
            height: of the picture, in pixels.
            width: of the picture, in pixels.
            seed: The same seed gives the same noise.
        """
        self.height = height
        self.width = width
        self.seed = seed
        self._field: Tensor | None = None

    def window(self, latent: Tensor, x: float, y: float, reduction: int) -> Tensor:
        """The noise for a tile.

        Args:
            latent: (1, C, h, w) or, of a video VAE, (1, C, 1, h, w): the tile's, for its shape.
            x: Left edge of the tile in the picture, in pixels.
            y: Its upper edge, in pixels.
            reduction: Pixels of the picture to one of the latent, the same for all tiles.

        Returns:
            The latent's shape, float32 on the CPU: a copy of one region of the field.
        """
        if self._field is None:
            # A tile is padded by less than this, and begins at the nearest latent pixel.
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
