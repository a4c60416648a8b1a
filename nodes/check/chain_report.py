from math import isnan, nan

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io

from ...coz.fidelity.report import measure_chain, write_report
from ..host.images import to_bchw
from ..host.messages import pick_css_color, show_closing
from ..host.sockets import Chain


class CoZMeasure(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZMeasure",
            display_name="CoZ Chain Report",
            category="Chain-of-Zoom/check",
            description="Says what is good and bad about a chain, and measures it step by step: how many "
            "real pixels each frame shows, how well it agrees with its input and with the source, how "
            "sharp it is, and how far its colors have moved. With a ground truth it also measures PSNR "
            "and SSIM.",
            search_aliases=[
                "report",
                "metrics",
                "PSNR",
                "SSIM",
                "evaluate",
                "measure",
                "quality",
                "sharpness",
                "ground truth",
                "benchmark",
            ],
            is_output_node=True,
            inputs=[
                Chain.Input("chain", tooltip="The chain of Chain Loop or CoZ Load Chain."),
                io.Image.Input(
                    "ground_truth",
                    optional=True,
                    tooltip="The true image that each step is compared with: the same whole image as the "
                    "chain's source, in the same shape, with as many pixels or more. It is never "
                    "enlarged: steps that are finer than it are not compared.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "table",
                    tooltip="What is good and bad, then all figures as a Markdown table with one row for "
                    "each step, and what each column means. The node shows it too.",
                ),
                io.Float.Output(
                    "agreement",
                    tooltip="The lowest agreement of all steps: the PSNR in dB of a step, downscaled, "
                    "with the window that it was made from. NaN for a chain without steps.",
                ),
                io.Float.Output(
                    "psnr",
                    tooltip="PSNR in dB of the deepest step that the ground truth reaches; a higher "
                    "value is nearer to the ground truth. NaN (no number) without a ground truth, or if "
                    "it reaches no step.",
                ),
                io.Float.Output(
                    "ssim",
                    tooltip="Structural similarity of the deepest step that the ground truth reaches; 1 "
                    "means equal. NaN where psnr is NaN.",
                ),
                io.Float.Output(
                    "sharpness",
                    tooltip="Sharpness of the deepest frame: the variance of the Laplacian of its luma, "
                    "which goes from 0 to 255. Noise is sharp too.",
                ),
                io.Float.Output(
                    "color_drift",
                    tooltip="How far a step moved the mean color of its input, on a scale from 0 to 255: "
                    "the value of the worst channel in the worst step.",
                ),
            ],
        )

    @classmethod
    def execute(cls, chain, ground_truth=None) -> io.NodeOutput:
        truth = None if ground_truth is None else require_ground_truth(ground_truth)
        bar = comfy.utils.ProgressBar(len(chain.frames) - 1)
        figures = []
        for frame_figures in measure_chain(chain, truth):
            figures.append(frame_figures)
            bar.update(1)
            throw_exception_if_processing_interrupted()
        table = write_report(chain, figures, truth)
        steps = figures[1:]
        compared = [f for f in steps if not isnan(f.psnr)]
        return io.NodeOutput(
            table,
            min((f.input for f in steps), default=nan),
            compared[-1].psnr if compared else nan,
            compared[-1].ssim if compared else nan,
            figures[-1].sharpness,
            max((f.drift for f in steps), default=nan),
            ui=show_closing()
            | {
                "text": [table],
                "coz_colors": [[pick_css_color(chain, f.layer) for f in figures]],
            },
        )


def require_ground_truth(image):
    if len(image) != 1:
        raise ValueError(
            f"ground_truth holds {len(image)} images, but a chain has one source: connect the image that the "
            "chain's source was made from (Get Image from Batch takes it out)"
        )
    return to_bchw(image, "ground_truth")
