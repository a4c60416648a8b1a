"""The backbones: what sharpens each view in Chain Loop and in Full-Image SR.

To add one, write its class in a file of its own and append it to BACKBONES. What users read of it
in Chinese is in locales/zh, and the options of every node are listed in js/docs.
"""

from comfy_api.latest import io

from .any_checkpoint import AnyCheckpoint
from .backbone import Backbone
from .one_step import OneStepDiffusion
from .upscale_model import UpscaleModel

BACKBONES: list[type[Backbone]] = [UpscaleModel, OneStepDiffusion, AnyCheckpoint]
"""In the order in which the node offers them. Later ones are appended."""

TEXT_INPUTS = ("prompting", "prompt", "step_prompts", "tile_prompts")
"""The inputs of Chain Loop and Full-Image SR that decide the texts."""


def unread_inputs(kind: type[Backbone]) -> list[str]:
    """The inputs that a backbone does not read where all texts are typed: js/unread.js hides them."""
    texts = () if kind.reads_text else TEXT_INPUTS
    return [*texts, *(() if kind.reads_seed else ("seed",))]


def backbone_input(**handed) -> io.Input:
    """``handed``: how its models arrive, AS_LINKS or as themselves."""
    summaries = [f"{each.name}: {each.summary}" for each in BACKBONES]
    return io.DynamicCombo.Input(
        "backbone",
        options=[io.DynamicCombo.Option(each.name, each.inputs(**handed)) for each in BACKBONES],
        tooltip=" ".join(["The model that sharpens each view.", *summaries]),
        extra_dict={"coz_unread": {each.name: unread_inputs(each) for each in BACKBONES}},
    )


def make_backbone(chosen: dict) -> Backbone:
    """Make the backbone that a node's ``backbone`` input chooses."""
    (kind,) = [each for each in BACKBONES if each.name == chosen["backbone"]]
    return kind(chosen)
