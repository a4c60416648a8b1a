import time

from torch import Tensor

from ...coz.geometry import Window
from ...coz.resample import resize
from ...coz.tiles.layout import TileLayout
from ..host.images import compute_preview_size, show_preview

MIN_PREVIEW_SECONDS = 0.5
"""Minimum time between two previews of a pass."""


class TilePreview:
    """A preview of the image that a pass enlarges, in which the finished tiles appear."""

    def __init__(self, image: Tensor, layout: TileLayout):
        height, width = compute_preview_size(layout.height, layout.width)
        self.shrink = height / layout.height, width / layout.width
        self.canvas = resize(image, height, width).clone()
        self.show()

    def show(self) -> None:
        self.shown_at = time.monotonic()
        show_preview(self.canvas)

    def add(self, window: Window, sr: Tensor) -> None:
        rows, columns = self.shrink
        top, bottom = (round(y * rows) for y in (window.y, window.y + window.height))
        left, right = (round(x * columns) for x in (window.x, window.x + window.width))
        if left < right and top < bottom:
            self.canvas[..., top:bottom, left:right] = resize(sr, bottom - top, right - left)
        if time.monotonic() - self.shown_at > MIN_PREVIEW_SECONDS:
            self.show()
