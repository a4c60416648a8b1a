from comfy_api.latest import io
from comfy_extras.nodes_upscale_model import ImageUpscaleWithModel

from ..coz.resample import resize
from .host import SEARCH_ALIASES, to_bchw, to_image


def resampling_input() -> io.Input:
    return io.Combo.Input(
        "resampling",
        options=["bicubic", "lanczos"],
        default="bicubic",
        advanced=True,
        tooltip="Used where the model's own factor is not the one asked for: its result is resized.",
    )


class CoZUpscaleStep(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZUpscaleStep",
            display_name="CoZ Upscale-Model Step",
            category="Chain-of-Zoom/step",
            description="One zoom step with an upscale model (ESRGAN and the like): enlarges the crop with the model "
            "and fits the result to the frame.",
            search_aliases=[*SEARCH_ALIASES, "ESRGAN", "upscale model"],
            inputs=[
                io.UpscaleModel.Input("upscale_model", tooltip="Any model of Load Upscale Model."),
                io.Image.Input("crop", tooltip="The window to enlarge, from Crop-Center-Zoom."),
                io.Image.Input(
                    "zoomed", tooltip="The same window enlarged: it gives the result its size."
                ),
                resampling_input(),
            ],
            outputs=[
                io.Image.Output("IMAGE", display_name="image", tooltip="The sharpened frame.")
            ],
        )

    @classmethod
    def execute(cls, upscale_model, crop, zoomed, resampling="bicubic") -> io.NodeOutput:
        lq = to_image(to_bchw(crop, "crop"))
        sr = to_bchw(ImageUpscaleWithModel.execute(upscale_model, lq)[0], "the model's result")
        return io.NodeOutput(to_image(resize(sr, *zoomed.shape[1:3], resampling)))
