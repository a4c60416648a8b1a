"""The text sources: where the text of each view comes from in Chain Loop and in Full-Image SR.

To add one, write its class in a file of its own and append it to TEXT_SOURCES. What users read of
it in Chinese is in locales/zh, and the options of every node are listed in js/docs.
"""

from comfy_api.latest import io

from .text_source import TextSource
from .vision_language_model import VisionLanguageModel

TYPED = "text"
"""The first option: all texts are typed, and nothing writes any."""

TEXT_SOURCES: list[type[TextSource]] = [VisionLanguageModel]
"""In the order in which the node offers them. Later ones are appended."""


def prompting_input(is_for_tiles: bool = False, **handed) -> io.Input:
    """``handed``: how its models arrive, AS_LINKS or as themselves."""
    typed = io.DynamicCombo.Option(TYPED, [])
    written = [
        io.DynamicCombo.Option(each.name, each.inputs(is_for_tiles, **handed))
        for each in TEXT_SOURCES
    ]
    summaries = [f"{each.name}: {each.summary}" for each in TEXT_SOURCES]
    return io.DynamicCombo.Input(
        "prompting",
        options=[typed, *written],
        tooltip=" ".join(
            [
                "Where the text of each view comes from. text: from the two fields below.",
                *summaries,
            ]
        ),
    )


def make_text_source(chosen: dict) -> TextSource | None:
    """Make the source that a node's ``prompting`` input chooses: None where all texts are typed."""
    kinds = [each for each in TEXT_SOURCES if each.name == chosen["prompting"]]
    return kinds[0](chosen) if kinds else None
