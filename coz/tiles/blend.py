"""Blend tiles into a picture as they come: no tile is kept, and there is no picture of weights."""

from math import pi

import torch
from torch import Tensor

from .layout import TileLayout

RIM_PIXELS = 32
"""Pixels along a tile's inner edges that weigh nothing: there a network sees least around it."""

NARROW_OVERLAP_PIXELS = 96
"""Pixels of overlap below which the rim is a third of it, so that a third is left to fade in."""


class TileBlend:
    """Adds tiles to a picture, each with smooth weights; at every pixel they sum to one.

    Each tile fades in over those before it along a raised cosine in the middle of the overlap. On
    either side of it the outermost 32 pixels of a tile, where a network sees least, weigh nothing;
    in an overlap below 96 pixels, a third of the overlap on each side. The weights sum to one
    by themselves, however many tiles overlap: there is nothing to divide by, so neither a second
    buffer nor a last pass. In float32 they do so to 1e-6.

    Deviation: the reference takes a Gaussian of variance 0.01 (in sides of a tile) and divides by
    the sum. At its overlap of a quarter, neighbours then change over within half of it.
    """

    def __init__(self, layout: TileLayout, out: Tensor) -> None:
        """Blend into ``out``, which is the picture once every tile has been added.

        Args:
            layout: of the tiles.
            out: (1, H, W, 3) float32 zeros of the layout's size, on any device; written to. A
                view of a larger picture will do.

        Raises:
            ValueError: If ``out`` is not of the layout's size.
        """
        _require_shape("out", out, (1, layout.height, layout.width, 3))
        self.out = out
        self._windows = layout.windows()
        in_y = compute_axis_weights(tuple(row.y for row in layout.rows), layout.tile_height)
        in_x = {
            xs: compute_axis_weights(xs, layout.tile_width)
            for xs in {row.xs for row in layout.rows}
        }
        self._weights = [
            (of_row, of_tile)
            for of_row, row in zip(in_y, layout.rows, strict=True)
            for of_tile in in_x[row.xs]
        ]

    def add(self, index: int, tile: Tensor) -> None:
        """Add a tile: each once, in any order.

        Args:
            index: of the tile in ``layout.windows()``.
            tile: (1, 3, h, w) of the layout's tile size, any float dtype, any device.

        Raises:
            ValueError: If ``tile`` has another size.
        """
        x, y, width, height = (int(v) for v in self._windows[index])
        _require_shape(f"tile {index}", tile, (1, 3, height, width))
        of_row, of_tile = (weights.to(self.out) for weights in self._weights[index])
        weights = torch.outer(of_row, of_tile)[..., None]
        pixels = tile.to(self.out).movedim(1, -1)
        self.out[:, y : y + height, x : x + width].addcmul_(pixels, weights)


def compute_axis_weights(starts: tuple[int, ...], length: int) -> list[Tensor]:
    """Weights of tiles along one axis.

    Args:
        starts: first pixel of each tile, ascending, with no gap between tiles.
        length: of each tile, in pixels.

    Returns:
        A (length,) float32 tensor in 0..1 for each tile; at each pixel they sum to one.
    """
    weights = [torch.ones(length, dtype=torch.float64)]
    for index in range(1, len(starts)):
        start = starts[index]
        overlap = starts[index - 1] + length - start
        fade = torch.ones(length, dtype=torch.float64)
        rim = RIM_PIXELS if overlap >= NARROW_OVERLAP_PIXELS else overlap // 3
        length_of_fade = overlap - 2 * rim
        place = (torch.arange(length_of_fade) + 0.5) / max(1, length_of_fade)
        fade[:rim] = 0
        fade[rim : overlap - rim] = 0.5 - 0.5 * torch.cos(pi * place)
        for earlier in range(index - 1, -1, -1):
            shared = starts[earlier] + length - start
            if shared < 1:
                break
            weights[earlier][-shared:] *= 1 - fade[:shared]
        weights.append(fade)
    return [weight.float() for weight in weights]


def _require_shape(name: str, image: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(image.shape) != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(image.shape)}")
