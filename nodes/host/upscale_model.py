"""Wrappers of ComfyUI's upscale models."""

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from comfy_execution.utils import ExecutionContext, get_executing_context
from spandrel import ImageModelDescriptor
from torch import Tensor

from ...coz.color.align import compute_luma, ycbcr_align
from ...coz.ensemble import self_ensemble
from ...coz.resample import resize
from .graph import get_running_prompt, list_used_models
from .messages import CALLED_SUFFIX, give_notice_once


class ModelWrapper(ImageModelDescriptor):
    """An upscale model that wraps another and changes what a call does.

    Both share network and patcher: they are loaded, moved and unloaded together, and the weights
    are in memory once.
    """

    def __init__(self, upscale_model: ImageModelDescriptor):
        # Not super().__init__: it would load the weights into the network once more.
        self.__dict__.update(vars(upscale_model))
        self.wrapped = upscale_model


class LumaModel(ModelWrapper):
    """A gray upscale model that takes color: it upscales the luma, and bicubic enlarges the chroma."""

    def __init__(self, upscale_model: ImageModelDescriptor):
        super().__init__(upscale_model)
        self.input_channels = self.output_channels = 3

    def __call__(self, image: Tensor) -> Tensor:
        sr = self.wrapped(compute_luma(image).to(image)).expand(-1, 3, -1, -1)
        return ycbcr_align(sr, resize(image, *sr.shape[-2:])).clamp(0, 1)


def adapt_to_color(upscale_model):
    """Return an upscale model that takes color images: the given one, or a wrapper of a gray one.

    Raises:
        ValueError: If the model does not have 3 channels in and out, or 1 and 1.
    """
    if not isinstance(upscale_model, ImageModelDescriptor):
        return upscale_model  # made by another pack; its channels are unknown
    channels = upscale_model.input_channels, upscale_model.output_channels
    if channels == (3, 3):
        return upscale_model
    name = name_model(upscale_model)
    if channels == (1, 1):
        give_notice_once(
            f"{name} is a gray model: it upscales the brightness, and bicubic enlarges the colors"
        )
        return LumaModel(upscale_model)
    raise ValueError(
        f"{name} takes images of {channels[0]} channels and gives {channels[1]}, but images here have 3 "
        "(red, green, blue). Choose a model for color images in Load Upscale Model, or a gray one (1 "
        "and 1)"
    )


def name_model(upscale_model) -> str:
    """Name the upscale model of the running node: by its file, if known, and its architecture."""
    kind = upscale_model.architecture.name if hasattr(upscale_model, "architecture") else "other"
    context: ExecutionContext | None = get_executing_context()
    if context is not None:
        prompt: DynamicPrompt = get_running_prompt()
        node_id = context.node_id.removesuffix(CALLED_SUFFIX)
        inputs = prompt.get_node(node_id)["inputs"] if prompt.has_node(node_id) else {}
        links = [value for key, value in inputs.items() if key.endswith("upscale_model")]
        for link in filter(is_link, links):
            if names := list_used_models(prompt, link[0]):
                return f"The upscale model {names[0]} ({kind})"
    return f"The upscale model ({kind})"


class SelfEnsembled(ModelWrapper):
    """An upscale model that returns the mean of its results for eight flips and rotations."""

    def __call__(self, image: Tensor) -> Tensor:
        return self_ensemble(self._upscale, image)

    def _upscale(self, image: Tensor) -> Tensor:
        throw_exception_if_processing_interrupted()  # ComfyUI itself checks only after all eight
        return self.wrapped(image)
