"""The text sources, which write the text of each view in Chain Loop and in Full-Image SR.

To add one, write its class in a new file and append it to TEXT_SOURCES. Add its Chinese texts to
locales/zh and its options to the help pages in js/docs.
"""

from comfy_api.latest import io

from .tags import Tags
from .text_source import TextSource
from .vision_language_model import VisionLanguageModel

TYPED = "text"
"""The first option: all texts are typed by the user."""

TEXT_SOURCES: list[type[TextSource]] = [VisionLanguageModel, Tags]
"""All text sources in the order of the node's options. Append new ones at the end."""


def make_prompting_input(is_for_tiles: bool = False, **socket_options) -> io.Input:
    """Make the input that chooses a text source.

    ``socket_options`` are added to each model socket: AS_LINKS if the node expands, otherwise none.
    """
    typed = io.DynamicCombo.Option(TYPED, [])
    written = [
        io.DynamicCombo.Option(each.name, each.make_inputs(is_for_tiles, **socket_options))
        for each in TEXT_SOURCES
    ]
    summaries = [f"{each.name}: {each.summary}" for each in TEXT_SOURCES]
    return io.DynamicCombo.Input(
        "prompting",
        options=[typed, *written],
        tooltip=" ".join(
            [
                "Where the text of each view comes from. text: you type it in the fields below.",
                *summaries,
            ]
        ),
    )


def make_text_source(chosen: dict) -> TextSource | None:
    """Make the source that a node's ``prompting`` input chooses; None if all texts are typed."""
    kinds = [each for each in TEXT_SOURCES if each.name == chosen["prompting"]]
    return kinds[0](chosen) if kinds else None
