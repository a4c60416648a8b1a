"""Blend tiles into an image one by one, without keeping them."""

from math import pi

import torch
from torch import Tensor

from ..detail.fusion import map_detail
from .layout import TileLayout

RIM_PIXELS = 32
"""Width of the band along a tile's inner edges that gets no weight: results are worst there, as a network
sees no pixels beyond the edge."""

NARROW_OVERLAP_PIXELS = 96
"""In a narrower overlap the rim is a third of the overlap, so that a third is left to fade in."""

DETAIL_SHARE = 0.3
"""Share of a tile's weight that depends on its detail. Source: the InvSR study (GitHub dgm-2025.2-g4),
util_smart_chopping.py."""


class TileBlend:
    """Adds tiles to an image with smooth weights that sum to one at every pixel.

    Each tile fades in over the earlier ones along a raised cosine in the middle of the overlap. The
    outermost ``RIM_PIXELS`` of a tile (in a narrow overlap: a third of it) get no weight. The
    weights sum to one (to 1e-6 in float32) without a division, however many tiles overlap, so no
    buffer of weights is needed, except with ``by_detail``.

    Deviation: upstream uses a Gaussian of variance 0.01 (in tile sides) and divides by the sum
    of weights. With upstream's overlap, a quarter of a tile, the transition here takes half the overlap.
    """

    def __init__(self, layout: TileLayout, out: Tensor, by_detail: bool = False) -> None:
        """Blend into ``out``, which holds the whole image after the last tile.

        Args:
            layout: Layout of the tiles.
            out: (1, H, W, 3) float32 zeros of the layout's size, on any device. It is modified, and
                may be a view of a larger image.
            by_detail: Reduce the weight of a tile by up to ``DETAIL_SHARE`` where it has little
                detail, and divide by the sum of weights, which takes a buffer of (1, H, W, 1).

        Raises:
            ValueError: If ``out`` has another size than the layout.
        """
        _require_shape("out", out, (1, layout.height, layout.width, 3))
        self.out = out
        self._totals = torch.zeros_like(out[..., :1]) if by_detail else None
        self._windows = layout.list_windows()
        in_y = self._weigh(tuple(row.y for row in layout.rows), layout.tile_height)
        in_x = {xs: self._weigh(xs, layout.tile_width) for xs in {row.xs for row in layout.rows}}
        self._weights = [
            (y_weights, x_weights)
            for y_weights, row in zip(in_y, layout.rows, strict=True)
            for x_weights in in_x[row.xs]
        ]

    def _weigh(self, starts: tuple[int, ...], length: int) -> list[Tensor]:
        """Compute the weights of tiles along one axis and copy them to the device of ``out`` at once."""
        return [*torch.stack(compute_axis_weights(starts, length)).to(self.out)]

    def add(self, index: int, tile: Tensor) -> None:
        """Add a tile. Each must be added once, in any order.

        Args:
            index: Index of the tile in ``layout.list_windows()``.
            tile: (1, 3, h, w) with the layout's tile size, any float dtype, any device.

        Raises:
            ValueError: If ``tile`` has another size.
        """
        x, y, width, height = (int(v) for v in self._windows[index])
        _require_shape(f"tile {index}", tile, (1, 3, height, width))
        y_weights, x_weights = self._weights[index]
        weights = torch.outer(y_weights, x_weights)[..., None]
        pixels = tile.to(self.out).movedim(1, -1)
        place = (slice(None), slice(y, y + height), slice(x, x + width))
        if self._totals is None:
            self.out[place].addcmul_(pixels, weights)
            return
        detail = map_detail(tile, "gradient").to(self.out).movedim(1, -1)
        weights = weights * torch.lerp(torch.ones_like(detail), detail, DETAIL_SHARE)
        total = self._totals[place].add_(weights)
        # The mean so far moves to the tile by the tile's share of all weights so far.
        share = weights / total.clamp(min=torch.finfo(total.dtype).tiny)
        self.out[place].lerp_(pixels, share.expand_as(pixels))


def compute_axis_weights(starts: tuple[int, ...], length: int) -> list[Tensor]:
    """Compute the weights of tiles along one axis.

    Args:
        starts: First pixel of each tile, ascending, without gaps between tiles.
        length: Length of each tile, in pixels.

    Returns:
        A (length,) float32 tensor in 0..1 for each tile; at each pixel they sum to one.
    """
    weights = [torch.ones(length, dtype=torch.float64)]
    for index in range(1, len(starts)):
        start = starts[index]
        overlap = starts[index - 1] + length - start
        fade = torch.ones(length, dtype=torch.float64)
        rim = RIM_PIXELS if overlap >= NARROW_OVERLAP_PIXELS else overlap // 3
        fade_length = overlap - 2 * rim
        place = (torch.arange(fade_length) + 0.5) / max(1, fade_length)
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
