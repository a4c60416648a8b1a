"""Reward a text by its effect on the image, which a ComfyUI makes with and without the text."""

import io
import json
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from PIL import Image

from tools.host.client import PromptError, ServerClient, run_prompt
from tools.image_file import to_png

from .config import Feedback as Settings
from .rewards import score_image_feedback

IMAGE, PROMPT = "{image}", "{prompt}"
"""Placeholders in the workflow for the view's file and for the text."""

Quality = Callable[[Image.Image], float]


class Feedback:
    """Compute the rewards of texts for views; the image without a text is made once per pair.

    Raises:
        ValueError: If the workflow or the metric cannot be used, or ComfyUI fails.
    """

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.host = ServerClient(settings.url)
        self.workflow = _read_workflow(folder / settings.workflow)
        self.quality = load_quality(settings.quality)
        self.quality_without_text: dict[str, float] = {}

    def __call__(
        self, pairs: Sequence[str], views: Sequence[Image.Image], words: Sequence[str]
    ) -> list[float | None]:
        found: list[float | None] = []
        for pair, view, text in zip(pairs, views, words, strict=True):
            name = self._upload(view)
            if pair not in self.quality_without_text:
                self.quality_without_text[pair] = self._measure_quality(name, "")
            without_text = self.quality_without_text[pair]
            quality = self._measure_quality(name, text) if text else without_text
            found.append(score_image_feedback(quality, without_text, self.settings.spread))
        return found

    def _measure_quality(self, image: str, words: str) -> float:
        text = self.workflow
        for placeholder, value in ((IMAGE, image), (PROMPT, words)):
            text = text.replace(placeholder, json.dumps(value)[1:-1])
        try:
            outputs = run_prompt(self.settings.url, json.loads(text)).outputs
        except (PromptError, OSError) as error:
            raise ValueError(f"feedback: {self.settings.url} makes no image: {error}") from error
        files = [file for output in outputs.values() for file in output.get("images", [])]
        if not files:
            raise ValueError("feedback.workflow outputs no image: end it with Preview Image")
        picture = Image.open(io.BytesIO(self.host.download(files[-1])))
        return self.quality(picture.convert("RGB"))

    def _upload(self, view: Image.Image) -> str:
        name = f"view-{os.getpid()}.png"  # the next view overwrites it
        place = {"subfolder": "coz-training", "overwrite": "true"}
        try:
            return self.host.upload(to_png(view.convert("RGB")), name, **place)
        except OSError as error:
            raise ValueError(
                f"feedback: no ComfyUI answers at {self.settings.url}: {error}"
            ) from error


def load_quality(name: str) -> Quality:
    """Load a metric of pyiqa, negated if lower is better, or a module:function that takes an image.

    Raises:
        ValueError: If there is none of that name.
    """
    module, _, function = name.partition(":")
    try:
        if function:
            return getattr(import_module(module), function)
        import pyiqa

        metric = pyiqa.create_metric(name)
    except (ImportError, AttributeError, KeyError, NotImplementedError, OSError) as error:
        raise ValueError(
            f"feedback.quality {name} cannot be loaded ({error}): install pyiqa in .venv-train, or name a "
            "module:function"
        ) from error
    sign = -1.0 if metric.lower_better else 1.0
    return lambda picture: sign * float(metric(picture))


def _read_workflow(path: Path) -> str:
    try:
        workflow = json.loads(path.read_text("utf-8"))
        text = json.dumps(workflow)
        if any("class_type" not in node for node in workflow.values()):
            raise ValueError("save it with Export (API)")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"feedback.workflow {path} cannot be used: {error}") from error
    for placeholder in (IMAGE, PROMPT):
        if placeholder not in text:
            raise ValueError(f"feedback.workflow {path} has no {placeholder} in it")
    return text
