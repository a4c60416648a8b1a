import comfy.utils
import torch
from comfy_api.latest import io

from ...coz.fidelity.back_projection import (
    agreement,
    back_project,
    describe_agreement,
    format_decibels,
)
from ...coz.fidelity.banded_resize import KERNELS, resize_banded
from ...coz.fidelity.invented import format_percent, measure_invented_energy
from ..host.images import to_bchw, to_image
from ..host.messages import show_closing


def match_sources(sources, count: int) -> list:
    """Return one source for each of ``count`` images: its own, or the only one."""
    if len(sources) not in {1, count}:
        raise ValueError(
            f"source holds {len(sources)} images, but image holds {count}: connect one source for all "
            "images, or one for each image"
        )
    return [*sources] * (count // len(sources))


class CoZConsistency(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZConsistency",
            display_name="CoZ Keep True to Source",
            category="Chain-of-Zoom/check",
            description="Corrects an enlarged image so that, downscaled, it equals its source again. "
            "Changes as little as possible, and measures how well the image agrees with the source.",
            search_aliases=["back projection", "consistency", "fidelity", "faithful", "PSNR"],
            inputs=[
                io.Image.Input("image", tooltip="The enlarged image, from any upscaler."),
                io.Image.Input(
                    "source",
                    tooltip="The image that was enlarged. It must show the same view and be no larger. "
                    "One for the whole batch, or one for each image.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the correction that is applied. 0 changes nothing and only "
                    "measures; 1 leaves no error.",
                ),
                io.Int.Input(
                    "iterations",
                    default=10,
                    min=1,
                    max=100,
                    tooltip="Number of correction iterations. More iterations reduce ringing at edges; "
                    "even one leaves an error below a thousandth of the brightness range.",
                ),
                io.Combo.Input(
                    "kernel",
                    options=KERNELS,
                    default="bicubic",
                    advanced=True,
                    tooltip="How the image is downscaled to compare it. bicubic: as most programs do it. "
                    "area: the mean of the pixels, as a camera's sensor gathers light.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "IMAGE", display_name="image", tooltip="The corrected image, in its own size."
                ),
                io.Float.Output(
                    "agreement",
                    tooltip="PSNR in dB of the downscaled result with the source; more is better. For "
                    "several images, the lowest.",
                ),
                io.Float.Output(
                    "invented",
                    tooltip="Percentage of the result's energy that the enlarged source does not hold. "
                    "For several images, the highest.",
                ),
                io.String.Output(
                    "report",
                    tooltip="One line for each image: the number of the source's pixels, how well the "
                    "result repeats them, and how much of its energy is not in the source. The node "
                    "shows it too.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image, source, strength, iterations, kernel="bicubic") -> io.NodeOutput:
        image = to_bchw(image)
        sources = match_sources(to_bchw(source, "source").split(1), len(image))
        corrected = torch.empty(image.shape, device=image.device) if strength else image
        progress = comfy.utils.ProgressBar(len(image))
        measured, lines = [], []
        # One image after the other: the correction takes several times the memory of its input.
        for k, (single, lq) in enumerate(zip(image.split(1), sources, strict=True)):
            # Contiguous channels make everything below much faster.
            before, lq = single.contiguous(), lq.contiguous()
            after, was = before, ""
            if strength:
                after = back_project(before, lq, strength, iterations, kernel).clamp(0, 1)
                corrected[k] = after[0]
                was = f", before {format_decibels(agreement(before, lq, kernel))}"
            db = agreement(after, lq, kernel)
            share = measure_invented_energy(after, resize_banded(lq, *after.shape[-2:]).clamp(0, 1))
            measured.append((db, share))
            sides = (f"{p.shape[-1]} x {p.shape[-2]}" for p in (lq, after))
            lines.append(
                f"{' pixels of its source in '.join(sides)}, {describe_agreement(db, 'its source')}{was}; "
                f"{format_percent(share)} of its energy is not in the source"
            )
            progress.update(1)
        report = "\n".join(lines)
        return io.NodeOutput(
            to_image(corrected),
            min(db for db, _ in measured),
            100 * max(share for _, share in measured),
            report,
            ui=show_closing(report),
        )
