"""The restraint: one number that says how closely a result stays to its view, and sets several inputs."""

from itertools import pairwise
from typing import NamedTuple

from comfy_api.latest import io

from ..host.options import require_range
from .backbone import Backbone


class RestraintRow(NamedTuple):
    """The values of the inputs that a restraint sets."""

    restraint: float
    consistency: float
    color_fix: str
    denoise: float


RESTRAINT_TABLE = [
    RestraintRow(0.0, 0.0, "adain", 0.6),
    RestraintRow(0.25, 0.0, "wavelet", 0.45),
    RestraintRow(0.5, 0.25, "wavelet", 0.35),
    RestraintRow(0.75, 0.5, "wavelet", 0.25),
    RestraintRow(1.0, 1.0, "wavelet", 0.15),
]
"""The table of the help pages. Between two rows the numbers are interpolated linearly."""


def make_restraint_input() -> io.Input:
    # Not a Float with force_input: when the frontend loads a node with a dynamic combo, it may take such an
    # input for a widget, and then drops one of the saved widget values (it only compares how many values are
    # saved with how many widgets there are).
    return io.MultiType.Input(
        "restraint",
        types=[io.Float, io.Int],
        optional=True,
        tooltip="How closely the result stays to the image, from 0 (the model invents freely) to 1 (closest "
        "to the image). Connect a number: it sets consistency, color_fix and denoise together. Without a "
        "connection the three inputs keep their own values.",
    )


def interpolate_restraint_row(restraint: float) -> RestraintRow:
    """Compute the values for a restraint from 0 to 1."""
    require_range("restraint", restraint, 0, 1)
    for low, high in pairwise(RESTRAINT_TABLE):
        if restraint < high.restraint:
            share = (restraint - low.restraint) / (high.restraint - low.restraint)
            consistency = low.consistency + share * (high.consistency - low.consistency)
            denoise = low.denoise + share * (high.denoise - low.denoise)
            return RestraintRow(restraint, round(consistency, 3), low.color_fix, round(denoise, 3))
    return RESTRAINT_TABLE[-1]


def restrain(
    restraint: float | None, backbone: Backbone, color_fix: str, consistency: float
) -> tuple[str, float, str]:
    """Return color_fix and consistency as the restraint sets them, and a notice that names all values.

    It sets the denoise of the backbone too. Without a restraint nothing changes.
    """
    if restraint is None:
        return color_fix, consistency, ""
    row = interpolate_restraint_row(restraint)
    values = [f"consistency {row.consistency:g}", f"color_fix {row.color_fix}"]
    values += backbone.set_denoise(row.denoise)
    notice = f"restraint {restraint:g} sets {', '.join(values)}"
    return row.color_fix, row.consistency, notice
