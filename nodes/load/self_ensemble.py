from comfy_api.latest import io
from spandrel import ImageModelDescriptor

from ..host.upscale_model import SelfEnsembled, adapt_to_color


class CoZSelfEnsemble(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSelfEnsemble",
            display_name="CoZ Self-Ensemble",
            category="Chain-of-Zoom/load",
            description="Makes an upscale model more faithful and eight times slower. The model enlarges "
            "each image in eight orientations (flips and rotations). The results are turned back and "
            "averaged.",
            search_aliases=["self-ensemble", "test-time augmentation", "TTA", "flip and rotate"],
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model",
                    tooltip="Any model from Load Upscale Model. It is not changed: other nodes can still "
                    "use it.",
                ),
            ],
            outputs=[
                io.UpscaleModel.Output(
                    "UPSCALE_MODEL",
                    display_name="upscale_model",
                    tooltip="The same model, eight times slower, for every node that takes an upscale "
                    "model.",
                )
            ],
        )

    @classmethod
    def execute(cls, upscale_model) -> io.NodeOutput:
        if isinstance(upscale_model, SelfEnsembled):
            return io.NodeOutput(upscale_model)  # a second self-ensemble would change nothing
        if not isinstance(upscale_model, ImageModelDescriptor):
            raise ValueError(
                "upscale_model must be a model that turns one image into another, got "
                f"{type(upscale_model).__name__}. Connect Load Upscale Model"
            )
        return io.NodeOutput(SelfEnsembled(adapt_to_color(upscale_model)))
