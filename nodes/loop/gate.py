from comfy_api.latest import io

from ...coz.fidelity.back_projection import MAX_SHOWN_DECIBELS
from ..host.expansion import BLOCKED

DECIMALS = 1
"""Of an agreement in dB, as it is shown, recorded and judged: what a person reads is what decides, and
a saved chain goes on as it would have."""


def judged(agreement: float) -> float:
    return min(round(agreement, DECIMALS), MAX_SHOWN_DECIBELS)


def is_below(agreement: float, stop_below: float) -> bool:
    """Whether a step with this agreement (dB) is the last; 0 stops at none."""
    return stop_below > 0 and judged(agreement) < min(stop_below, MAX_SHOWN_DECIBELS)


class CoZChainGate(io.ComfyNode):
    """Only where the host keeps nothing between nodes (--cache-none).

    Else the collector asks for one step after the other, and the steps need no gate, which would
    make them depend on ``stop_below``. Here what is asked for late would run all steps before it
    again, so each step waits from the start, behind the gate of the one before.
    """

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZChainGate",
            display_name="CoZ Chain Gate",
            category="Chain-of-Zoom/step",
            description="Internal: lets the next step of a chain run, or not.",
            is_dev_only=True,
            is_output_node=True,  # so that it waits from the start, and what it needs with it
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
