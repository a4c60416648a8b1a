from comfy_api.latest import io

from ..coz.banded import resized
from ..coz.consistency import agreement, back_project, decibels
from ..coz.detail import invented, percent
from .host import SEARCH_ALIASES, show, to_bchw, to_image

KERNELS = ["bicubic", "area"]


class CoZConsistency(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZConsistency",
            display_name="CoZ Keep True to Source",
            category="Chain-of-Zoom/check",
            description="Makes an enlarged picture repeat its source: made small again, it equals the picture that it was "
            "made from. Changes as little as that takes, and measures how true the picture is.",
            search_aliases=[
                *SEARCH_ALIASES,
                "back projection",
                "consistency",
                "fidelity",
                "faithful",
                "PSNR",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The enlarged picture, from any upscaler."),
                io.Image.Input(
                    "source",
                    tooltip="The picture that was enlarged, showing the same view: one for all, or one for each picture.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Part of the correction that is made. 0 changes nothing and only measures; 1 leaves no error.",
                ),
                io.Int.Input(
                    "iterations",
                    default=10,
                    min=1,
                    max=100,
                    tooltip="Rounds of the correction: more of them ring less beside edges. The error left is below a thousandth after "
                    "any number.",
                ),
                io.Combo.Input(
                    "kernel",
                    options=KERNELS,
                    default="bicubic",
                    advanced=True,
                    tooltip="How the picture is made small to compare it. bicubic: as most programs shrink pictures. area: the "
                    "mean of the pixels, as a camera's sensor gathers light.",
                ),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The corrected picture."),
                io.Float.Output(
                    "agreement",
                    tooltip="How well the result, made small, repeats the source: PSNR in dB, more is better. Of several "
                    "pictures, the lowest.",
                ),
                io.Float.Output(
                    "invented",
                    tooltip="Percent of the result's energy that the enlarged source does not hold. Of several pictures, the "
                    "highest.",
                ),
                io.String.Output("report", tooltip="Both as text, a line for each picture."),
            ],
        )

    @classmethod
    def execute(cls, image, source, strength, iterations, kernel="bicubic") -> io.NodeOutput:
        image, lq = to_bchw(image), to_bchw(source, "source").contiguous()
        sr = image.contiguous()  # planes: all below is much faster
        result = back_project(sr, lq, strength, iterations, kernel)
        if strength:
            image = result = result.clamp(0, 1)
        measured, lines = [], []
        for before, after, small in zip(sr, result, lq.expand(len(sr), -1, -1, -1), strict=True):
            before, after, small = before[None], after[None], small[None]
            db = agreement(after, small, kernel)
            share = invented(after, resized(small, *after.shape[-2:]).clamp(0, 1))
            measured.append((db, share))
            was = f" ({decibels(agreement(before, small, kernel))} before)" if strength else ""
            lines.append(
                f"agrees with its source to {decibels(db)}{was}, invented {percent(share)}"
            )
        report = "\n".join(lines)
        show(report)
        return io.NodeOutput(
            to_image(image),
            min(db for db, _ in measured),
            100 * max(share for _, share in measured),
            report,
        )
