"""The nodes of one step of Chain Loop, which do what one turn of the loop in ``coz/zoom.py`` does."""

from collections.abc import Callable
from typing import NamedTuple

from comfy.cli_args import args

from ...coz.chain.zoom_chain import derive_step_seed
from ...coz.geometry import ZoomStep
from ...coz.text.step_prompts import choose_step_texts, split_step_lines
from ..backbones.backbone import Backbone, ViewLinks
from ..text_sources.text_source import TextSource


class StepSettings(NamedTuple):
    """The inputs of Chain Loop that apply to every step."""

    scale: float
    prompt: str
    step_prompts: str
    seed: int
    color_fix: str
    consistency: float
    stop_below: float


class StepNodes:
    """Adds the nodes of the steps, one step after the other, to an expansion of Chain Loop."""

    def __init__(
        self,
        add_node: Callable,
        backbone: Backbone,
        text_source: TextSource | None,
        settings: StepSettings,
        frames: list[list],
    ):
        self.add_node = add_node
        self.backbone = backbone
        self.text_source = text_source
        self.settings = settings
        self.frames = list(frames)
        """Links to all frames before the next step."""
        self.current = frames[-1]
        backbone.add_check(add_node)

    def add(self, i: int, step: ZoomStep) -> dict[str, list | str | float]:
        """Add step i and return the inputs that it gives the collector."""
        zoom = self.add_node(
            "CoZCropCenterZoom",
            f"zoom_{i}",
            image=self.current,
            scale=self.settings.scale,
            center_x=step.target.x,
            center_y=step.target.y,
        )
        view = ViewLinks(
            zoomed=zoom.out(0),
            crop=zoom.out(1),
            frame=self.current,
            window=zoom.out(2),
            seed=derive_step_seed(self.settings.seed, i),
        )
        text = self._add_text(i, view)
        sr = self.backbone.add_nodes(self.add_node, i, view, text)
        frame, check = self._add_correction(i, sr, view)
        self.frames.append(frame)
        self.current = self._add_gate(i, frame, check)
        denoise = self.backbone.denoise
        return {
            **({} if denoise is None else {f"denoise_{i}": denoise}),
            f"frame_{i}": frame,
            f"text_{i}": text,
            f"preview_files_{i}": check.out(1),
            f"agreement_{i}": check.out(2),
            f"invented_{i}": check.out(3),
            f"notices_{i}": check.out(4),
        }

    def _add_text(self, i: int, view: ViewLinks) -> str | list:
        """Return the typed text of step i, or let the text source write it and return the link to it."""
        chosen = self.settings
        if self.text_source is None or split_step_lines(chosen.step_prompts, i)[-1]:
            return choose_step_texts(chosen.prompt, chosen.step_prompts, i)[-1]
        return self.text_source.add_nodes(
            self.add_node, i, view.zoomed, self.frames, chosen.prompt, chosen.seed
        )

    def _add_correction(self, i: int, sr: list, view: ViewLinks):
        """Add the nodes that correct and check a frame; return its link and the checking node."""
        if self.settings.color_fix != "none":
            sr = self.add_node(
                "CoZColorFix",
                f"fix_{i}",
                image=sr,
                reference=view.zoomed,
                method=self.settings.color_fix,
            ).out(0)
        strength = self.settings.consistency
        check = self.add_node(
            "CoZChainCheck",
            f"check_{i}",
            image=sr,
            crop=view.crop,
            zoomed=view.zoomed,
            strength=strength,
        )
        return check.out(0) if strength > 0 else sr, check

    def _add_gate(self, i: int, frame: list, check) -> list:
        """Return the link to the image of the next step: the frame, or with --cache-none a gate after it."""
        if not args.cache_none:
            return frame
        return self.add_node(
            "CoZChainGate",
            f"gate_{i}",
            image=frame,
            agreement=check.out(2),
            stop_below=self.settings.stop_below,
        ).out(0)
