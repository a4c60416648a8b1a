"""The nodes that one step of Chain Loop becomes, as ``coz.zoom`` has them as lines."""

from collections.abc import Callable
from typing import NamedTuple

from comfy.cli_args import args

from ...coz.chain.zoom_chain import derive_step_seed
from ...coz.geometry import ZoomStep
from ...coz.text.step_prompts import choose_step_texts, split_step_lines
from ..backbones.backbone import Backbone, ViewLinks
from ..step.color_fix import WAVELET_LEVELS
from ..text_sources.text_source import TextSource


class StepSettings(NamedTuple):
    """The inputs of Chain Loop that hold for every step."""

    scale: float
    prompt: str
    step_prompts: str
    seed: int
    color_fix: str
    consistency: float
    stop_below: float


class StepNodes:
    """Adds one step after the other to an expansion of Chain Loop."""

    def __init__(
        self,
        node: Callable,
        backbone: Backbone,
        text_source: TextSource | None,
        settings: StepSettings,
        frames: list[list],
    ):
        self.node = node
        self.backbone = backbone
        self.text_source = text_source
        self.settings = settings
        self.frames = list(frames)
        """The links to x_0 .. x_{i-1}."""
        self.current = frames[-1]

    def add(self, i: int, step: ZoomStep) -> dict[str, list | str]:
        """Add step i and return its inputs of the collector."""
        zoom = self.node(
            "CoZCropCenterZoom",
            f"zoom_{i}",
            image=self.current,
            scale=self.settings.scale,
            center_x=step.aim.x,
            center_y=step.aim.y,
            resampling="bicubic",
        )
        view = ViewLinks(
            zoomed=zoom.out(0),
            crop=zoom.out(1),
            frame=self.current,
            window=zoom.out(2),
            seed=derive_step_seed(self.settings.seed, i),
        )
        text = self._describe(i, view)
        sr = self.backbone.as_nodes(self.node, i, view, text)
        frame, check = self._align(i, sr, view)
        self.frames.append(frame)
        self.current = self._gate(i, frame, check)
        return {
            f"frame_{i}": frame,
            f"text_{i}": text,
            f"shown_{i}": check.out(1),
            f"agreement_{i}": check.out(2),
            f"invented_{i}": check.out(3),
            f"notices_{i}": check.out(4),
        }

    def _describe(self, i: int, view: ViewLinks) -> str | list:
        """The text of step i: typed, or the link to what the text source writes."""
        chosen = self.settings
        if self.text_source is None or split_step_lines(chosen.step_prompts, i)[-1]:
            return choose_step_texts(chosen.prompt, chosen.step_prompts, i)[-1]
        return self.text_source.as_nodes(
            self.node, i, view.zoomed, self.frames, chosen.prompt, chosen.seed
        )

    def _align(self, i: int, sr: list, view: ViewLinks):
        """The link to the frame in the view's colours and true to it, and the node that checks it."""
        if self.settings.color_fix != "none":
            sr = self.node(
                "CoZColorFix",
                f"fix_{i}",
                image=sr,
                reference=view.zoomed,
                method=self.settings.color_fix,
                levels=WAVELET_LEVELS,
            ).out(0)
        strength = self.settings.consistency
        check = self.node(
            "CoZChainCheck",
            f"check_{i}",
            image=sr,
            crop=view.crop,
            zoomed=view.zoomed,
            strength=strength,
        )
        return check.out(0) if strength > 0 else sr, check

    def _gate(self, i: int, frame: list, check) -> list:
        """The link that the next step zooms into."""
        if not args.cache_none:
            return frame
        return self.node(
            "CoZChainGate",
            f"gate_{i}",
            image=frame,
            agreement=check.out(2),
            stop_below=self.settings.stop_below,
        ).out(0)
