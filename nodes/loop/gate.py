from comfy_api.latest import io

from ...coz.fidelity.back_projection import MAX_SHOWN_DECIBELS
from ..host.expansion import BLOCKED

AGREEMENT_DECIMALS = 1
"""Decimals of an agreement in dB where it is shown, recorded, and compared with stop_below. It is rounded
before it is compared, so that the number shown decides, and a saved and loaded chain stops at the same
step."""


def round_agreement(agreement: float) -> float:
    return min(round(agreement, AGREEMENT_DECIMALS), MAX_SHOWN_DECIBELS)


def is_below(agreement: float, stop_below: float) -> bool:
    """Whether a step with this agreement (dB) ends the chain; never if ``stop_below`` is 0."""
    return stop_below > 0 and round_agreement(agreement) < min(stop_below, MAX_SHOWN_DECIBELS)


class CoZChainGate(io.ComfyNode):
    """Lets the next step run only if the chain goes on; used only with --cache-none.

    With a cache, the collector requests one step after the other, and no gate is used: with gates, each
    change of ``stop_below`` would run all steps again. Without a cache, each request would run all
    earlier steps again. So each step runs without a request, unless the gate of the step before stops it.
    """

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZChainGate",
            display_name="CoZ Chain Gate",
            category="Chain-of-Zoom/step",
            description="Internal: lets the next step of a chain run, or not.",
            is_dev_only=True,
            is_output_node=True,  # so that ComfyUI runs it, and all before it, without a request
            inputs=[
                io.Image.Input("image"),
                io.Float.Input("agreement"),
                io.Float.Input("stop_below"),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, agreement, stop_below) -> io.NodeOutput:
        ends = is_below(agreement, stop_below)
        return io.NodeOutput(BLOCKED if ends else image)
