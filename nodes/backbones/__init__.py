"""The backbones, which sharpen each view in Chain Loop and in Full-Image SR.

To add one, write its class in a new file and append it to BACKBONES. Add its Chinese texts to
locales/zh and its options to the help pages in js/docs.
"""

from comfy_api.latest import io

from .any_checkpoint import AnyCheckpoint
from .backbone import Backbone
from .inversion import DiffusionInversion
from .one_step import OneStepDiffusion
from .upscale_model import UpscaleModel

BACKBONES: list[type[Backbone]] = [
    UpscaleModel,
    OneStepDiffusion,
    AnyCheckpoint,
    DiffusionInversion,
]
"""All backbones in the order of the node's options. Append new ones at the end."""

TEXT_INPUTS = ("prompting", "prompt", "step_prompts", "tile_prompts")
"""The inputs of Chain Loop and Full-Image SR that decide the texts."""


def list_unread_inputs(kind: type[Backbone]) -> list[str]:
    """List the inputs that have no effect with a backbone if ``prompting`` is "text".

    js/host/unread.js hides them.
    """
    texts = () if kind.reads_text else TEXT_INPUTS
    return [*texts, *(() if kind.reads_seed else ("seed",))]


def make_backbone_input(**socket_options) -> io.Input:
    """Make the input that chooses a backbone.

    ``socket_options`` are added to each model socket: AS_LINKS if the node expands, otherwise none.
    """
    summaries = [f"{each.name}: {each.summary}" for each in BACKBONES]
    return io.DynamicCombo.Input(
        "backbone",
        options=[
            io.DynamicCombo.Option(each.name, each.make_inputs(**socket_options))
            for each in BACKBONES
        ],
        tooltip=" ".join(["The model that sharpens each view.", *summaries]),
        extra_dict={"coz_unread": {each.name: list_unread_inputs(each) for each in BACKBONES}},
    )


def make_backbone(chosen: dict) -> Backbone:
    """Make the backbone that a node's ``backbone`` input chooses."""
    (kind,) = [each for each in BACKBONES if each.name == chosen["backbone"]]
    return kind(chosen)
