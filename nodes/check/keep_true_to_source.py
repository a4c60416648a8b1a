import comfy.utils
import torch
from comfy_api.latest import io

from ...coz.fidelity.back_projection import (
    back_project,
    describe_agreement,
    format_decibels,
    start_measuring_agreement,
)
from ...coz.fidelity.banded_resize import KERNELS, resize_banded
from ...coz.fidelity.invented import format_percent, start_measuring_invented_energy
from ...coz.fidelity.pending_figure import PendingFigure, read_figures
from ..host.images import to_bchw
from ..host.messages import finish_with_notices


def match_sources(sources, count: int) -> list:
    """Return one source for each of ``count`` images: its own, or the only one."""
    if len(sources) not in {1, count}:
        raise ValueError(
            f"source holds {len(sources)} images, but image holds {count}: connect one source for all "
            "images, or one for each image"
        )
    return [*sources] * (count // len(sources))


class CoZKeepTrueToSource(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZConsistency",
            display_name="CoZ Keep True to Source",
            category="Chain-of-Zoom/check",
            description="Corrects an enlarged image so that it equals its source again when it is "
            "downscaled. It changes the image as little as possible. It also measures how well the image "
            "agrees with the source.",
            search_aliases=["back projection", "consistency", "fidelity", "faithful", "PSNR"],
            inputs=[
                io.Image.Input("image", tooltip="The enlarged image, from any upscaler."),
                io.Image.Input(
                    "source",
                    tooltip="The image that was enlarged. It must show the same view as the enlarged image "
                    "and be no larger. Connect one source for the whole batch, or one for each image.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How much of the correction is applied. 0: none; the node only measures. 1: "
                    "all of it.",
                ),
                io.Int.Input(
                    "iterations",
                    default=10,
                    min=1,
                    max=100,
                    tooltip="Number of correction iterations. More iterations reduce ringing at edges. "
                    "After a single iteration the error is already below a thousandth of the brightness "
                    "range.",
                ),
                io.Combo.Input(
                    "kernel",
                    options=KERNELS,
                    default="bicubic",
                    advanced=True,
                    tooltip="How the image is downscaled for the comparison. bicubic: as most programs do "
                    "it. area: by the mean of the pixels, similar to a camera sensor.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE",
                    display_name="image",
                    tooltip="The corrected image, in the size of the enlarged image.",
                ),
                io.Float.Output(
                    "agreement",
                    tooltip="PSNR in dB of the downscaled result compared with the source; more is better. "
                    "For several images, the lowest value.",
                ),
                io.Float.Output(
                    "invented",
                    tooltip="How much of the result is not in the source, in percent of the energy of the "
                    "result (the variance of its pixel values). For several images, the highest value.",
                ),
                io.String.Output(
                    "report",
                    tooltip="One line for each image: the number of pixels of the source, how well the "
                    "result repeats them, and how much of it is not in the source. The node shows it too.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image, source, strength, iterations, kernel="bicubic") -> io.NodeOutput:
        image = to_bchw(image)
        sources = match_sources(to_bchw(source, "source").split(1), len(image))
        corrected = torch.empty(image.shape, device=image.device)
        progress = comfy.utils.ProgressBar(len(image))
        pending: list[PendingFigure] = []
        # One image after the other: the correction takes several times the memory of its input.
        for before, after, lq in zip(image.split(1), corrected.split(1), sources, strict=True):
            back_project(before, lq, strength, iterations, kernel, out=after).clamp_(0, 1)
            pending += [start_measuring_agreement(x, lq, kernel) for x in (before, after)]
            enlarged = resize_banded(lq, *after.shape[-2:]).clamp_(0, 1)
            pending.append(start_measuring_invented_energy(after, enlarged))
            del enlarged
            progress.update(1)
        figures = read_figures(*pending)
        agreements, shares = figures[1::3], figures[2::3]
        height, width = image.shape[-2:]
        source_height, source_width = sources[0].shape[-2:]
        lines = [
            f"The image of {width} x {height} pixels shows {source_width} x {source_height} pixels of its "
            f"source. It {describe_agreement(db, 'its source')}"
            f"{f'; before the correction it had {format_decibels(before)}' if strength else ''}. "
            f"{format_percent(share)} of its energy is not in the source."
            for before, db, share in zip(figures[::3], agreements, shares, strict=True)
        ]
        report = "\n".join(lines)
        return io.NodeOutput(
            corrected.movedim(1, -1),
            min(agreements),
            100 * max(shares),
            report,
            ui=finish_with_notices(report),
        )
