from math import isnan, nan

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io

from ...coz.fidelity.report import measure_chain, write_report
from ..host.images import to_bchw
from ..host.messages import finish_with_notices, pick_css_color
from ..host.sockets import Chain


class CoZChainReport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZMeasure",
            display_name="CoZ Chain Report",
            category="Chain-of-Zoom/check",
            description="Judges a chain in words and measures each step: how many real pixels the frame "
            "shows, how well it agrees with its input and with the source image, how sharp it is, and how "
            "far its colors have moved. With a ground truth it also measures PSNR and SSIM.",
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
                    tooltip="The true image to compare each step with. It must show the same as the source "
                    "of the chain, with the same proportions and at least as many pixels. Steps that are "
                    "finer than the ground truth are not compared with it.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "table",
                    tooltip="A judgment in words, then a Markdown table with one row for each step, then "
                    "what each column means. The node shows it too.",
                ),
                io.Float.Output(
                    "agreement",
                    tooltip="The lowest agreement of all steps with their inputs. Agreement is the PSNR in "
                    "dB of the downscaled result compared with the window that it was made from. NaN (not "
                    "a number) for a chain without steps.",
                ),
                io.Float.Output(
                    "psnr",
                    tooltip="PSNR in dB of the deepest step that can be compared with the ground truth. "
                    "Higher is closer. NaN (not a number) without a ground truth, or if no step can be "
                    "compared.",
                ),
                io.Float.Output(
                    "ssim",
                    tooltip="SSIM (structural similarity) of the same step; 1 means equal. NaN if psnr is "
                    "NaN.",
                ),
                io.Float.Output(
                    "sharpness",
                    tooltip="Sharpness of the deepest frame: the variance of the Laplacian of its luma on "
                    "a scale from 0 to 255. Noise counts as sharp too.",
                ),
                io.Float.Output(
                    "color_drift",
                    tooltip="How far a step moved the mean color of its input, on a scale from 0 to 255. "
                    "The value is that of the worst step and its worst color channel.",
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
            min((f.input_agreement for f in steps), default=nan),
            compared[-1].psnr if compared else nan,
            compared[-1].ssim if compared else nan,
            figures[-1].sharpness,
            max((f.drift for f in steps), default=nan),
            ui=finish_with_notices()
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
