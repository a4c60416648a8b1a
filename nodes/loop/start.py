"""Where Chain Loop starts: at a picture's first frame, or at a frame of an earlier chain."""

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

import torch
from torch import Tensor

from ...coz.chain.zoom_chain import ZoomChain
from ...coz.geometry import Target, Window, carry_target, place_first_frame
from ...coz.text.step_prompts import join_texts, split_step_lines
from ..host.expansion import Expansion
from ..host.target import is_blank, target_of
from ..step.crop_center_zoom import plan_first_frame

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
    windows: Sequence[Window]
    notes: list[str]
    """Warnings that the node shows."""
    color_profile: str
    """As in ``ZoomChain``, like the fields below."""
    prompts: Sequence[str] = ()
    seeds: Sequence[int] = ()
    models: Sequence[str] = ()
    agreements: Sequence[float] = ()
    invented: Sequence[float] = ()

    def parts(self) -> dict[str, list | str | float]:
        """The inputs of the collector for the steps that are there."""
        frames = {f"frame_{i}": link for i, link in enumerate(self.frames)}
        texts = {f"text_{i}": text for i, text in enumerate(self.prompts, 1)}
        figures = {
            f"{name}_{i}": value
            for name, values in (("agreement", self.agreements), ("invented", self.invented))
            for i, value in enumerate(values, 1)
            if not isnan(value)  # a NaN would make the collector another one in each run
        }
        return {**figures, **frames, **texts}


def start_at_picture(
    expansion: Expansion,
    picture: Tensor,
    scale: float,
    center: Target,
    mask: Tensor | None,
    frame: str,
    frame_size: int,
    color_profile: str,
) -> Start:
    notes: list[str] = []
    target = target_of(*center, mask, notes.append)
    link, index = expansion.links["image"], expansion.index
    source = expansion.node("CoZChainInput", "input", image=link, index=index).out(0)
    place = {"frame": frame, "size": frame_size, "center_x": target.x, "center_y": target.y}
    x_0 = expansion.node("CoZFitImage", "first", image=source, **place).out(0)
    first = plan_first_frame(*picture.shape[-2:], frame_size, frame, target)
    return Start(
        source=source,
        frames=[x_0],
        height=first.height,
        width=first.width,
        scale=scale,
        target=target,
        aim=first.target,
        windows=[first.window],
        color_profile=color_profile,
        notes=notes,
    )


def start_at_chain(expansion: Expansion, chain: ZoomChain, kept: int, notes: list[str]) -> Start:
    """After step ``kept`` of the chain."""
    link, index = expansion.links["chain"], expansion.index
    pictures = expansion.node("CoZChainFrames", "frames", chain=link, index=index)
    aim = chain.target
    for frame, window in zip(chain.frames, chain.windows[: kept + 1], strict=False):
        aim = carry_target(*frame.shape[-2:], window, aim)
    height, width = chain.frames[1].shape[-2:]
    return Start(
        source=pictures.out(0),
        frames=[pictures.out(i + 1) for i in range(kept + 1)],
        height=height,
        width=width,
        scale=chain.scale,
        target=chain.target,
        aim=aim,
        windows=chain.windows[: kept + 1],
        prompts=chain.prompts[:kept],
        seeds=chain.seeds[:kept],
        models=chain.models if kept else (),
        agreements=chain.agreements[:kept],
        invented=chain.invented[:kept],
        color_profile=chain.color_profile,
        notes=notes,
    )


def is_same(image: Tensor, source: Tensor) -> bool:
    """In bands: of a whole picture it takes four times its memory."""
    bands = zip(image.split(BAND, -2), source.split(BAND, -2), strict=False)
    return image.shape == source.shape and all(
        torch.allclose(one, other, rtol=0, atol=SAME) for one, other in bands
    )


def describe_unused_inputs(
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
    """Warn about inputs that a connected chain overrides, in one line or none."""
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
    own, told = split_step_lines(step_prompts, kept), join_texts(chain.prompts).split("\n")
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
