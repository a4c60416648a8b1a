"""The nodes of the passes of Full-Image SR."""

import json

from ...coz.tiles.layout import TileLayout
from ..backbones.backbone import Backbone
from ..host.expansion import Expansion, nest_inputs
from ..text_sources import TYPED
from ..text_sources.text_source import TextSource
from .easy_tiles import BUILT_IN, BUILT_IN_FILE


class PassNodes:
    """Adds the nodes of the passes, one pass after the other, to an expansion of Full-Image SR."""

    def __init__(
        self,
        expansion: Expansion,
        source: list,
        backbone: Backbone,
        text_inputs: tuple[dict, TextSource | None, str, int],
        settings: dict,
    ):
        """Start with the first pass.

        Args:
            source: Link to the image that the first pass enlarges.
            text_inputs: prompting, its text source, prompt and seed.
            settings: Inputs that the tiles of all passes have.
        """
        self.expansion = expansion
        self.source = self.current = source
        """``current`` is the link to the result of the last pass."""
        self.backbone = backbone
        self.text_inputs = text_inputs
        self.settings = settings
        self.texts: str | list = ""
        """Link to the texts of all passes."""
        self.notices: dict[str, list] = {}

    def add(
        self, layout: TileLayout, lines: list[str], easy_mode: str, easy_indices: list[int]
    ) -> None:
        """Add the nodes of the next pass.

        Args:
            lines: The texts of its tiles, from ``plan_pass_texts``.
            easy_mode: The input easy_tiles.
            easy_indices: The indices of its easy tiles.
        """
        i = len(self.notices) + 1
        inputs = {"image": self.current, "source": self.source, "number": i}
        inputs["layout"] = json.dumps(layout)
        prompts, self.texts = add_texts(
            self.expansion, inputs, lines, self.texts, *self.text_inputs
        )
        inputs["prompts"] = prompts if self.backbone.reads_text else ""
        inputs |= nest_inputs("backbone", self.backbone.choose_inputs(i))
        inputs |= make_easy_inputs(self.expansion, easy_mode, easy_indices)
        tiles = self.expansion.add_node("CoZTiles", f"tiles_{i}", **inputs, **self.settings)
        self.current, self.notices[f"notices_{i}"] = tiles.out(0), tiles.out(1)

    def add_collector(self, notices: list[str]) -> list:
        """Add the node that shows all notices, and return the link to the result."""
        inputs = {"image": self.current, "notices": "\n".join(notices), **self.notices}
        return self.expansion.add_node("CoZFullImageCollect", "collect", **inputs).out(0)

    def add_complexity_map(self) -> list:
        """Add the node that shows the detail of the image, and return the link to its output."""
        return self.expansion.add_node("CoZComplexityMap", "map", image=self.source).out(0)


def make_easy_inputs(expansion: Expansion, easy_mode: str, easy_indices: list[int]) -> dict:
    """Return the inputs of a pass for its easy tiles, none if it has none."""
    if not easy_indices:
        return {}
    inputs = {"easy": json.dumps(easy_indices)}
    if easy_mode == BUILT_IN:
        name = {"model_name": BUILT_IN_FILE}
        model = expansion.add_node("UpscaleModelLoader", "easy_model", **name)
        inputs["easy_model"] = model.out(0)
    return inputs


def add_texts(
    expansion: Expansion,
    pass_inputs: dict,
    lines: list[str],
    before: str | list,
    prompting: dict,
    text_source: TextSource | None,
    prompt: str,
    seed: int,
) -> tuple[list, list]:
    """Add the nodes that write the texts of a pass.

    Args:
        before: Link to the texts of all passes before.

    Returns:
        The links to the texts of this pass, and to those of all passes up to it.
    """
    needs_texts = "" in lines
    typed = "\n".join(lines)
    extracted = expansion.add_node(
        "CoZTilePrompts",
        f"prompts_{pass_inputs['number']}",
        **pass_inputs,
        **nest_inputs("prompting", prompting if needs_texts else {"prompting": TYPED}),
        tile_prompts=typed,
        seed=seed if needs_texts and text_source.reads_seed else 0,
    ).out(0)
    written = expansion.add_node(
        "CoZTileTexts",
        f"texts_{pass_inputs['number']}",
        extracted=extracted,
        tile_prompts=typed,
        prompt=prompt if needs_texts else "",
        before=before,
    )
    return written.out(0), written.out(1)
