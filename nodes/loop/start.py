"""Start Chain Loop at the first frame of an image, or at a frame of an earlier chain."""

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor

from ...coz.chain.zoom_chain import ZoomChain
from ...coz.geometry import Target, Window, carry_target, place_first_frame
from ...coz.text.step_prompts import join_texts, split_step_lines
from ..host.expansion import Expansion
from ..host.target import is_blank, resolve_target
from ..step.crop_center_zoom import plan_first_frame

MAX_SAVING_ERROR = 1 / 65535
"""Maximum difference between an image and the same image saved with 16 bits."""

BAND_ROWS = 256
"""Number of rows that are compared at a time."""


class Start(NamedTuple):
    """The chain before the first step that runs, with links to its frames."""

    source: list
    frames: list[list]
    height: int
    width: int
    scale: float
    target: Target
    """The target in fractions of the source."""
    frame_target: Target
    """The target in fractions of the last frame."""
    windows: Sequence[Window]
    notices: list[str]
    color_profile: str
    """This field and those below are as in ``ZoomChain``."""
    prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()
    models: Sequence[str] = ()
    agreements: Sequence[float] = ()
    invented: Sequence[float] = ()
    denoises: Sequence[float] = ()

    def list_collector_inputs(self) -> dict[str, list | str | float]:
        """Return the inputs of the collector for the steps of this start."""
        frames = {f"frame_{i}": link for i, link in enumerate(self.frames)}
        texts = {f"text_{i}": text for i, text in enumerate(self.prompts, 1)}
        figures = {
            f"{name}_{i}": value
            for name, values in (
                ("agreement", self.agreements),
                ("invented", self.invented),
                ("denoise", self.denoises),
            )
            for i, value in enumerate(values, 1)
            if not isnan(value)  # a NaN would be a cache miss in every run
        }
        return {**figures, **frames, **texts}


def start_at_image(
    expansion: Expansion,
    image: Tensor,
    scale: float,
    center: Target,
    mask: Tensor | None,
    frame: str,
    frame_size: int,
    color_profile: str,
) -> Start:
    """Add the nodes that make the first frame, and start there."""
    notices: list[str] = []
    target = resolve_target(*center, mask, notices.append)
    link, index = expansion.links["image"], expansion.index
    source = expansion.add_node("CoZChainInput", "input", image=link, index=index).out(0)
    place = {"frame": frame, "size": frame_size, "center_x": target.x, "center_y": target.y}
    # CoZFitImage is CoZ First Frame.
    x_0 = expansion.add_node("CoZFitImage", "first", image=source, **place).out(0)
    first = plan_first_frame(*image.shape[-2:], frame_size, frame, target)
    return Start(
        source=source,
        frames=[x_0],
        height=first.height,
        width=first.width,
        scale=scale,
        target=target,
        frame_target=first.target,
        windows=[first.window],
        color_profile=color_profile,
        notices=notices,
    )


def start_at_chain(expansion: Expansion, chain: ZoomChain, kept: int, notices: list[str]) -> Start:
    """Add the node that outputs the frames of the chain, and start after its step ``kept``."""
    link, index = expansion.links["chain"], expansion.index
    child = expansion.add_node("CoZChainFrames", "frames", chain=link, index=index)
    target = chain.target
    for frame, window in zip(chain.frames, chain.windows[: kept + 1], strict=False):
        target = carry_target(*frame.shape[-2:], window, target)
    height, width = chain.frames[1].shape[-2:]
    return Start(
        source=child.out(0),
        frames=[child.out(i + 1) for i in range(kept + 1)],
        height=height,
        width=width,
        scale=chain.scale,
        target=chain.target,
        frame_target=target,
        windows=chain.windows[: kept + 1],
        prompts=chain.prompts[:kept],
        seeds=chain.seeds[:kept],
        models=chain.models if kept else (),
        agreements=chain.agreements[:kept],
        invented=chain.invented[:kept],
        denoises=chain.denoises[:kept],
        color_profile=chain.color_profile,
        notices=notices,
    )


def is_same(image: Tensor, source: Tensor) -> bool:
    """Whether two images are equal up to MAX_SAVING_ERROR.

    They are compared in bands, because allclose takes four times the memory of what it compares.
    """
    bands = zip(image.split(BAND_ROWS, -2), source.split(BAND_ROWS, -2), strict=False)
    return image.shape == source.shape and all(
        torch.allclose(one, other, rtol=0, atol=MAX_SAVING_ERROR) for one, other in bands
    )


def write_unused_inputs_notice(
    chain: ZoomChain,
    kept: int,
    image: Tensor,
    scale: float,
    center: Target,
    mask: Tensor | None,
    step_prompts: str,
    frame: str,
    frame_size: int,
) -> list[str]:
    """Return one notice about the inputs that a connected chain overrides, or an empty list."""
    has_mask = mask is not None and not is_blank(mask)
    source, x_0 = chain.frames[:2]
    height, width = x_0.shape[-2:]
    first = place_first_frame(*source.shape[-2:], frame_size, frame, chain.target)
    same = {
        "image": is_same(image, source),
        "scale": scale == chain.scale,
        "center_x": has_mask or center.x == chain.target.x,
        "center_y": has_mask or center.y == chain.target.y,
        "frame, size": first[:3] == (height, width, chain.windows[0]),
        "mask": not has_mask,
    }
    names = [name for name in same if not same[name]]
    typed, recorded = split_step_lines(step_prompts, kept), join_texts(chain.prompts).split("\n")
    for i, (line, text) in enumerate(zip(typed, recorded, strict=False), 1):
        if line not in ("", text):
            names.append(f"line {i} of step_prompts")
    if not names:
        return []
    x, y = chain.target
    return [
        f"Not used, because the chain has its own: {', '.join(names)}. The chain zooms by {chain.scale:g} "
        f"into {x:.4f}, {y:.4f} of its image, with frames of {width} x {height}"
    ]
