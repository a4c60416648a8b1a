from math import isnan, nan

import comfy.utils
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io

from ...coz.fidelity.report import measure_chain, write_report
from ..host.images import to_bchw
from ..host.messages import closing, color_of_real_pixels
from ..host.sockets import Chain


class CoZMeasure(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZMeasure",
            display_name="CoZ Chain Report",
            category="Chain-of-Zoom/check",
            description="Says what is good and bad of a chain, and measures it step by step: how many real pixels each frame "
            "shows, how true it is to what it was made from and to the source, how sharp it is, and how far its colours have "
            "moved. With the true picture also PSNR and SSIM.",
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
                Chain.Input("chain", tooltip="From Chain Loop or CoZ Load Chain."),
                io.Image.Input(
                    "ground_truth",
                    optional=True,
                    tooltip="The true picture: the same whole picture as the chain's source, with more pixels. Each step is held "
                    "to it as far as it is as fine as the step.",
                ),
            ],
            outputs=[
                io.String.Output(
                    "table",
                    tooltip="What is good and bad, all figures, a line for each step, and what they mean. The node shows it too.",
                ),
                io.Float.Output(
                    "agreement",
                    tooltip="How well a step, made small, repeats the window that it was made from: PSNR in dB, of all steps the "
                    "lowest.",
                ),
                io.Float.Output(
                    "psnr",
                    tooltip="Of the deepest step that the ground truth reaches, against it: dB, more is nearer. NaN without one.",
                ),
                io.Float.Output(
                    "ssim",
                    tooltip="Structural similarity of the same step to the ground truth, 1 where they are equal. NaN without one.",
                ),
                io.Float.Output(
                    "sharpness",
                    tooltip="Of the deepest frame: variance of its Laplacian in squared levels of 255. Noise is sharp too.",
                ),
                io.Float.Output(
                    "color_drift",
                    tooltip="Levels of 255 by which a step moved the mean colour, of all steps the most.",
                ),
            ],
        )

    @classmethod
    def execute(cls, chain, ground_truth=None) -> io.NodeOutput:
        truth = None if ground_truth is None else true_picture(ground_truth)
        bar = comfy.utils.ProgressBar(len(chain.frames) - 1)
        figures = []
        for of_a_frame in measure_chain(chain, truth):
            figures.append(of_a_frame)
            bar.update(1)
            throw_exception_if_processing_interrupted()
        table = write_report(chain, figures, truth)
        steps = figures[1:]
        held = [f for f in steps if not isnan(f.psnr)]
        return io.NodeOutput(
            table,
            min((f.input for f in steps), default=nan),
            held[-1].psnr if held else nan,
            held[-1].ssim if held else nan,
            figures[-1].sharpness,
            max((f.drift for f in steps), default=nan),
            ui=closing()
            | {
                "text": [table],
                "coz_colors": [[color_of_real_pixels(chain, f.layer) for f in figures]],
            },
        )


def true_picture(image):
    if len(image) != 1:
        raise ValueError(
            f"ground_truth holds {len(image)} pictures and a chain is of one: connect the picture "
            "that the chain's source was made from (Get Image from Batch takes it out)"
        )
    return to_bchw(image, "ground_truth")
