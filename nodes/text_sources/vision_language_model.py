from comfy_api.latest import io
from torch import Tensor

from ...coz.chain.zoom_chain import derive_step_seed
from ...coz.text.step_prompts import clean_prompt
from ...coz.tiles.layout import TileLayout
from ...coz.tiles.plan import cut_surroundings, cut_tile_view, make_overview
from ..host.expansion import nest_inputs
from ..host.images import to_bchw, to_image
from ..host.messages import hide_called_progress
from ..step.prompt_extractor import (
    DEFAULT_MAX_TOKENS,
    CoZPromptExtractor,
    make_instruction_input,
    make_max_tokens_input,
)
from .text_source import TextSource

PREVIOUS, ORIGINAL, NONE = "previous scale", "original image", "none"

DEFAULT_MAX_TILE_TOKENS = 16
"""The limit for a tile in Chain-of-Zoom's inference_coz_full.py."""


class VisionLanguageModel(TextSource):
    name = "vision-language model"
    summary = "a model looks at each view and writes its text; prompt is added at the end."

    @classmethod
    def make_inputs(cls, is_for_tiles: bool, **socket_options) -> list[io.Input]:
        return [
            io.Clip.Input(
                "vlm",
                **socket_options,
                tooltip="A model that reads images and writes text: from CoZ Load Prompt Extractor, or "
                "Qwen3-VL, Qwen3.5, Gemma 3 (with vision) or Gemma 4 from Load CLIP.",
            ),
            io.Combo.Input(
                "context",
                options=[PREVIOUS, ORIGINAL, NONE],
                default=ORIGINAL if is_for_tiles else PREVIOUS,
                tooltip="What the model sees besides the tile. previous scale: the part of the image "
                "around the tile. original image: the whole image. none: nothing else."
                if is_for_tiles
                else "What the model sees besides the view. previous scale: the frame before, as in the "
                "paper. original image: the first frame. none: nothing else.",
            ),
            make_max_tokens_input(DEFAULT_MAX_TILE_TOKENS if is_for_tiles else DEFAULT_MAX_TOKENS),
            make_instruction_input(),
            io.Float.Input(
                "temperature",
                default=0.0,
                min=0.0,
                max=2.0,
                step=0.01,
                advanced=True,
                tooltip="0: the model always takes the most likely words. Above 0: it chooses words at "
                "random, with the seed of the view. A higher value allows less likely words.",
            ),
        ]

    @property
    def reads_seed(self) -> bool:
        return self.chosen["temperature"] > 0

    def choose_sampling_mode(self, seed: int, number: int) -> dict:
        """Return the sampling_mode of VLM Prompt Extractor for one view."""
        if not self.reads_seed:
            return {"sampling_mode": "off"}
        return {
            "sampling_mode": "on",
            "temperature": self.chosen["temperature"],
            "top_p": 1.0,
            "seed": derive_step_seed(seed, number),
        }

    def add_nodes(self, add_node, i, zoomed, frames, prompt, seed) -> list:
        inputs = nest_inputs("sampling_mode", self.choose_sampling_mode(seed, i))
        context = {PREVIOUS: frames[-1], ORIGINAL: frames[0], NONE: None}[self.chosen["context"]]
        if context is not None:
            inputs["previous_image"] = context
        return add_node(
            "CoZPromptExtractor",
            f"prompt_{i}",
            vlm=self.chosen["vlm"],
            image=zoomed,
            prompt=clean_prompt(prompt),
            instruction=self.chosen["instruction"],
            max_tokens=self.chosen["max_tokens"],
            **inputs,
        ).out(0)

    def start_pass(self, image: Tensor, source: Tensor, layout: TileLayout, seed: int) -> None:
        self.image, self.layout, self.seed = image, layout, seed
        self.windows = layout.list_windows()
        self.whole_image = None
        if self.chosen["context"] == ORIGINAL:
            self.whole_image = to_image(make_overview(to_bchw(source)))

    def run(self, index: int) -> str:
        window = self.windows[index]
        context = self.whole_image
        if self.chosen["context"] == PREVIOUS:
            context = to_image(cut_surroundings(self.image, self.layout, window))
        with hide_called_progress():
            return CoZPromptExtractor.execute(
                self.chosen["vlm"],
                to_image(cut_tile_view(self.image, self.layout, window)),
                "",
                self.chosen["instruction"],
                self.chosen["max_tokens"],
                self.choose_sampling_mode(self.seed, index + 1),
                context,
            )[0]
