"""Where Chain Loop starts: at a picture's first frame, or at a frame of an earlier chain."""

from collections.abc import Callable
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor

from ..coz.chain import ZoomChain
from ..coz.geometry import Target, Window, carry_target, first_frame
from ..coz.prompt import join_texts, step_lines
from .zoom import plan_first_frame

SAME = 1 / 65535
"""Greatest difference of a picture from itself after it was saved with 16 bits."""

BAND = 256
"""Rows that are compared at a time."""


class Start(NamedTuple):
    """What is there before the first step that is to run, frames as links."""

    source: list
    frames: list[list]
    height: int
    width: int
    scale: float
    target: Target
    """As fractions of the source."""
    aim: Target
    """As fractions of the last frame."""
    windows: list[Window]
    prompts: list[str]
    seeds: list[int]
    models: list[str]
    agreements: list[float]
    """As of ``ZoomChain``: none, or one for each step."""
    invented: list[float]
    color_profile: str
    """As of ``ZoomChain``."""

    def figures(self) -> dict[str, float]:
        """What was measured of the steps that are there, as the collector's inputs."""
        figures = {
            f"{name}_{i}": value
            for name, values in (("agreement", self.agreements), ("invented", self.invented))
            for i, value in enumerate(values, 1)
        }
        # A NaN would make the collector another one in each run.
        return {name: value for name, value in figures.items() if not isnan(value)}


def start_at_picture(
    node: Callable,
    link: list,
    index: int,
    size: tuple[int, int],
    scale: float,
    target: Target,
    frame: str,
    frame_size: int,
    color_profile: str,
) -> Start:
    source = node("CoZChainInput", "input", image=link, index=index).out(0)
    place = {"frame": frame, "size": frame_size, "center_x": target.x, "center_y": target.y}
    x_0 = node("CoZFitImage", "first", image=source, **place).out(0)
    first = plan_first_frame(*size, frame_size, frame, target)
    side = first.height, first.width
    return Start(
        source,
        [x_0],
        *side,
        scale,
        target,
        first.target,
        [first.window],
        [],
        [],
        [],
        [],
        [],
        color_profile,
    )


def start_at_chain(node: Callable, link: list, index: int, chain: ZoomChain, kept: int) -> Start:
    """After step ``kept`` of the chain."""
    pictures = node("CoZChainFrames", "frames", chain=link, index=index)
    aim = chain.target
    for frame, window in zip(chain.frames, chain.windows[: kept + 1], strict=False):
        aim = carry_target(*frame.shape[-2:], window, aim)
    return Start(
        pictures.out(0),
        [pictures.out(i + 1) for i in range(kept + 1)],
        *chain.frames[1].shape[-2:],
        chain.scale,
        chain.target,
        aim,
        list(chain.windows[: kept + 1]),
        list(chain.prompts[:kept]),
        list(chain.seeds[:kept]),
        list(chain.models) if kept else [],
        list(chain.agreements[:kept]),
        list(chain.invented[:kept]),
        chain.color_profile,
    )


def is_same(image: Tensor, source: Tensor) -> bool:
    """In bands: of a whole picture it takes four times its memory."""
    bands = zip(image.split(BAND, -2), source.split(BAND, -2), strict=False)
    return image.shape == source.shape and all(
        torch.allclose(one, other, rtol=0, atol=SAME) for one, other in bands
    )


def ignored(
    chain: ZoomChain,
    kept: int,
    image: Tensor,
    scale: float,
    center: Target | None,
    step_prompts: str,
    frame: str,
    frame_size: int,
) -> list[str]:
    """A line that names the inputs which say something else than the chain, whose values hold.

    ``center`` is None where a mask stands for it: with a chain no mask is used.
    """
    source, x_0 = chain.frames[:2]
    height, width = x_0.shape[-2:]
    first = first_frame(*source.shape[-2:], frame_size, frame, chain.target)
    same = {
        "image": is_same(image, source),
        "scale": scale == chain.scale,
        "center_x": center is None or center.x == chain.target.x,
        "center_y": center is None or center.y == chain.target.y,
        "frame, size": first[:3] == (height, width, chain.windows[0]),
        "mask": center is not None,
    }
    names = [name for name in same if not same[name]]
    own, told = step_lines(step_prompts, kept), join_texts(chain.prompts).split("\n")
    for i, (line, text) in enumerate(zip(own, told, strict=False), 1):
        if line not in ("", text):
            names.append(f"line {i} of step_prompts")
    if not names:
        return []
    x, y = chain.target
    return [
        f"Not used, the chain has its own: {', '.join(names)}. It zooms by {chain.scale:g} into "
        f"{x:.4f}, {y:.4f} of its picture, with frames of {width} x {height}"
    ]
