from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import io
from spandrel import ImageModelDescriptor
from torch import Tensor

from ..coz.ensemble import self_ensemble
from .host import SEARCH_ALIASES


class SelfEnsembled(ImageModelDescriptor):
    """An upscale model whose call is the mean of eight; all else is that of the given one.

    Network and patcher are the given model's own: whoever loads, moves or unloads this one does
    so with both, and the weights are in memory once.
    """

    def __init__(self, upscale_model: ImageModelDescriptor):
        # Not super().__init__: it would load the weights into the network once more.
        self.__dict__.update(vars(upscale_model))
        self.single = upscale_model

    def __call__(self, image: Tensor) -> Tensor:
        return self_ensemble(self._upscale, image)

    def _upscale(self, image: Tensor) -> Tensor:
        throw_exception_if_processing_interrupted()  # the host looks only after all eight
        return self.single(image)


class CoZSelfEnsemble(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZSelfEnsemble",
            display_name="CoZ Self-Ensemble",
            category="Chain-of-Zoom/load",
            description="Makes an upscale model more faithful, at eight times the time: it enlarges each picture in its "
            "eight flips and rotations and gives the mean.",
            search_aliases=[
                *SEARCH_ALIASES,
                "self-ensemble",
                "upscale model",
                "ESRGAN",
                "test-time augmentation",
                "TTA",
            ],
            inputs=[
                io.UpscaleModel.Input(
                    "upscale_model",
                    tooltip="Any model of Load Upscale Model. It is not changed.",
                ),
            ],
            outputs=[
                io.UpscaleModel.Output(
                    "UPSCALE_MODEL",
                    display_name="upscale_model",
                    tooltip="The same model, eight times slower: for every node that takes an upscale model.",
                )
            ],
        )

    @classmethod
    def execute(cls, upscale_model) -> io.NodeOutput:
        if isinstance(upscale_model, SelfEnsembled):
            return io.NodeOutput(upscale_model)  # the mean of its turns is itself
        if not isinstance(upscale_model, ImageModelDescriptor):
            raise ValueError(
                "upscale_model must be a model that turns one image into another, got "
                f"{type(upscale_model).__name__}. Connect Load Upscale Model"
            )
        return io.NodeOutput(SelfEnsembled(upscale_model))
