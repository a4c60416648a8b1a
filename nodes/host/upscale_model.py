"""ComfyUI's upscale models, and what wraps them."""

from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_execution.graph import DynamicPrompt
from comfy_execution.graph_utils import is_link
from comfy_execution.utils import ExecutionContext, get_executing_context
from spandrel import ImageModelDescriptor
from torch import Tensor

from ...coz.color.align import luma, ycbcr_align
from ...coz.ensemble import self_ensemble
from ...coz.resample import resize
from .graph import get_running_prompt, list_used_models
from .messages import CALLED_SUFFIX, give_notice_once


class WrappedModel(ImageModelDescriptor):
    """An upscale model with a call of its own; all else is that of the given one.

    Network and patcher are the given model's own: whoever loads, moves or unloads this one does
    so with both, and the weights are in memory once.
    """

    def __init__(self, upscale_model: ImageModelDescriptor):
        # Not super().__init__: it would load the weights into the network once more.
        self.__dict__.update(vars(upscale_model))
        self.single = upscale_model


class LumaModel(WrappedModel):
    """A grey upscale model that takes colour: it enlarges the luma, bicubic enlarges the rest."""

    def __init__(self, upscale_model: ImageModelDescriptor):
        super().__init__(upscale_model)
        self.input_channels = self.output_channels = 3

    def __call__(self, image: Tensor) -> Tensor:
        sr = self.single(luma(image).to(image)).expand(-1, 3, -1, -1)
        return ycbcr_align(sr, resize(image, *sr.shape[-2:])).clamp(0, 1)


def adapt_to_color(upscale_model):
    """Return the upscale model, or a grey one as one that takes colour.

    Raises:
        ValueError: If it takes and gives other channels than three or one.
    """
    if not isinstance(upscale_model, ImageModelDescriptor):
        return upscale_model  # of another pack, which need not tell its channels
    channels = upscale_model.input_channels, upscale_model.output_channels
    if channels == (3, 3):
        return upscale_model
    name = name_model(upscale_model)
    if channels == (1, 1):
        give_notice_once(
            f"{name} is a grey model: it enlarges the brightness, and colours are enlarged with bicubic"
        )
        return LumaModel(upscale_model)
    raise ValueError(
        f"{name} takes pictures of {channels[0]} channels and gives {channels[1]}, and pictures here have 3 "
        "(red, green, blue). Choose a model for colour pictures in Load Upscale Model, or a grey one (1 "
        "and 1)"
    )


def name_model(upscale_model) -> str:
    """Return the file name of the upscale model that the running node is given, else its architecture."""
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


class SelfEnsembled(WrappedModel):
    """An upscale model whose call is the mean of eight."""

    def __call__(self, image: Tensor) -> Tensor:
        return self_ensemble(self._upscale, image)

    def _upscale(self, image: Tensor) -> Tensor:
        throw_exception_if_processing_interrupted()  # ComfyUI looks only after all eight
        return self.single(image)
