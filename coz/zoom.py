"""Chain-of-Zoom: zoom into an image in steps, each of which super-resolves a part of the last frame."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from .chain.zoom_chain import ZoomChain, derive_step_seed
from .geometry import Window, ZoomPlan
from .resample import crop, cut_first_frame, resize


class View(NamedTuple):
    """The view of a step, ``zoomed``, enlarged from ``crop``, which was cut from ``frame`` (1, 3, H, W)."""

    zoomed: Tensor
    crop: Tensor
    frame: Tensor
    window: Window
    seed: int


def zoom(
    image: Tensor,
    plan: ZoomPlan,
    super_resolve: Callable[[View, str], Tensor],
    describe: Callable[[Tensor, Tensor], str] | None = None,
    align: Callable[[Tensor, View], Tensor] | None = None,
    on_step: Callable[[ZoomChain], bool | None] | None = None,
) -> ZoomChain:
    """Zoom into an image (Kim et al., arXiv 2505.18600). Images are float32 in [0, 1].

    Args:
        image: The source, (1, 3, H, W). It is not modified.
        plan: From ``plan_zoom``, for an image of this size.
        super_resolve: Maps (view, text) to the next frame, in the shape of ``view.zoomed``.
        describe: Maps (frame, ``view.zoomed``) to the text of the step. Without it texts are empty.
        align: Maps (super-resolved frame, view) to the frame in the view's colors.
        on_step: Called after each step with the chain so far. The chain ends if it returns False.
    """
    x = cut_first_frame(image, plan.first)  # x_0
    chain = ZoomChain(plan.scale, (image, x), (plan.first.window,), (), (), plan.target)
    for i, step in enumerate(plan.steps, 1):
        pixels = crop(x, step.window)
        zoomed = resize(pixels, plan.first.height, plan.first.width).clamp(0, 1)
        view = View(zoomed, pixels, x, step.window, derive_step_seed(plan.seed, i))
        text = describe(x, zoomed) if describe else ""  # Eq. 2; its x_{i-1} is zoomed, x_{i-2} is x
        x = super_resolve(view, text).clamp(0, 1)  # Eq. 7, x_i = f(x_{i-1}, c_i)
        x = align(x, view).clamp(0, 1) if align else x
        chain = replace(  # record the step
            chain,
            frames=(*chain.frames, x),
            windows=(*chain.windows, step.window),
            prompts=(*chain.prompts, text),
            seeds=(*chain.seeds, view.seed),
        )
        if on_step and on_step(chain) is False:
            return chain
    return chain
