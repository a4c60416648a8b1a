from comfy_api.latest import io
from torch import Tensor

from ...coz.text.step_prompts import clean_prompt
from ...coz.tiles.layout import TileLayout
from ...coz.tiles.plan import cut_tile_view
from ..host.images import to_image
from ..host.messages import hide_called_progress
from ..host.sockets import TaggerSocket
from ..step.tag_prompt import CoZTagPrompt, make_exclude_input
from .text_source import TextSource


class Tags(TextSource):
    name = "tags (RAM/DAPE)"
    summary = (
        "the tagging model RAM (Recognize Anything), with or without its LoRA DAPE, finds tags that fit "
        "each view; prompt is added at the end."
    )
    reads_seed = False

    @classmethod
    def make_inputs(cls, is_for_tiles: bool, **socket_options) -> list[io.Input]:
        return [
            TaggerSocket.Input(
                "tagger", **socket_options, tooltip="The model, from CoZ Load Tagger."
            ),
            make_exclude_input(),
        ]

    def add_nodes(self, add_node, i, zoomed, frames, prompt, seed) -> list:
        return add_node(
            "CoZTagPrompt",
            f"prompt_{i}",
            tagger=self.chosen["tagger"],
            image=zoomed,
            threshold_shift=0.0,
            exclude=self.chosen["exclude"],
            prompt=clean_prompt(prompt),
        ).out(0)

    def start_pass(self, image: Tensor, source: Tensor, layout: TileLayout, seed: int) -> None:
        self.image, self.layout = image, layout

    def run(self, index: int) -> str:
        view = cut_tile_view(self.image, self.layout, self.layout.list_windows()[index])
        with hide_called_progress():
            return CoZTagPrompt.execute(
                self.chosen["tagger"], to_image(view), exclude=self.chosen["exclude"]
            )[0]
