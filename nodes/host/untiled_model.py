"""Wrap upscale models for ComfyUI's node.

Their weights then are where the image is, a region is never split into tiles, and several regions are
enlarged as one batch.
"""

import comfy.model_management
from torch import Tensor

from ...coz.tiles.grid import join_grid, split_grid


class RegionOutOfMemoryError(Exception):
    """Wraps an out-of-memory error so that ComfyUI's upscale node does not handle it."""


class LoadedModel:
    """An upscale model whose weights are all where the image is.

    With --novram, or where little memory is free, ComfyUI leaves them on the CPU, and its node fails.
    """

    def __init__(self, upscale_model):
        self.upscale_model = upscale_model

    def __getattr__(self, name):
        return getattr(self.upscale_model, name)

    def __call__(self, image: Tensor) -> Tensor:
        patcher = getattr(self.upscale_model, "patcher", None)  # since ComfyUI 0.30
        if patcher is not None and not patcher.is_dynamic():
            patcher.model.to(image.device)
        return self.upscale_model(image)


class UntiledModel(LoadedModel):
    """An upscale model that enlarges a region as a whole or fails.

    After an out-of-memory error, ComfyUI's node would go on with tiles that have no margins. That node
    also enlarges the images of a batch one by one. So a batch is given to it as one image, a grid of
    regions (``join_grid``), and this model enlarges them as a batch.
    """

    def __init__(self, upscale_model):
        super().__init__(upscale_model)
        self.grid = 1, 1
        """Rows and columns of regions in the image."""

    def __call__(self, image: Tensor) -> Tensor:
        try:
            if self.grid == (1, 1):
                return super().__call__(image)
            return join_grid(super().__call__(split_grid(image, *self.grid)), *self.grid)
        except Exception as error:
            comfy.model_management.raise_non_oom(error)
            # The traceback would keep the tensors of the failed attempt in memory.
            raise RegionOutOfMemoryError from error.with_traceback(None)
