"""Convert images between the forms of ComfyUI and of coz/, and preview them."""

import json
from collections.abc import Callable
from math import isfinite, sqrt

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import ui
from comfy_execution.utils import ExecutionContext, get_executing_context
from torch import Tensor

from ...coz.geometry import Target, Window
from ...coz.render.pillow import to_pillow
from ...coz.resample import resize
from .messages import STEP_ID, give_notice_once

MAX_PREVIEW_PIXELS = 768 * 768
"""Maximum size of a preview, as an area: a panorama keeps as much detail as a square image."""

MAX_PREVIEW_SIDE_PIXELS = 3072

MAX_OVERSHOOT = 1 / 8
"""Values this far below 0 or above 1 are clipped without a notice. ComfyUI's bicubic scaling
overshoots an edge by up to 0.094 (3/32); the values that an HDR image loses lie far above."""


class NotFiniteError(ValueError):
    """A model made NaN or infinite values."""


def compute_preview_size(height: int, width: int) -> tuple[int, int]:
    """Return (height, width) of a preview, within MAX_PREVIEW_PIXELS and MAX_PREVIEW_SIDE_PIXELS."""
    pixels = height * width
    shrink = min(1, sqrt(MAX_PREVIEW_PIXELS / pixels), MAX_PREVIEW_SIDE_PIXELS / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def downscale_to_preview(image: Tensor) -> Tensor:
    """Return the preview of a (1, 3, H, W) image as an IMAGE."""
    return to_image(resize(image, *compute_preview_size(*image.shape[-2:])))


def hide_files(files: list[ui.SavedResult] | dict) -> str:
    """Return files for the pack's own page code in a form that the frontend does not recognize.

    The frontend's apps, job history and assets treat every file of a ui output as a result, under
    any key.
    """
    return json.dumps(files)


def save_preview(image: Tensor, target: Target) -> list[str]:
    """Save the preview of a (1, 3, H, W) image in ComfyUI's temporary folder, for the target picker.

    Return its file with the image's full size in pixels and the target, as a ui output.
    """
    (saved,) = ui.PreviewImage(downscale_to_preview(image)).as_dict()["images"]
    height, width = image.shape[-2:]
    return [hide_files({**saved, "height": height, "width": width, "target": [*target]})]


def show_preview(image: Tensor) -> None:
    """Show a (1, 3, H, W) image as the preview of the prompt that runs.

    An app of the frontend shows it until there is a result. The preview of a child of Chain Loop
    does not appear on the loop's node, which shows its finished frames.
    """
    small = downscale_to_preview(image).movedim(-1, 1)
    comfy.utils.ProgressBar(1).update_absolute(0, preview=("JPEG", to_pillow(small), None))


def to_rgb(image: Tensor) -> Tensor:
    """Convert (..., C) to (..., 3): repeat gray, drop alpha."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)


def to_bchw(image: Tensor, name: str = "image") -> Tensor:
    """Convert an IMAGE (B, H, W, C) of any float dtype to (B, 3, H, W) float32 in [0, 1].

    Gray is repeated, alpha dropped, and values outside [0, 1] are clamped, as in ComfyUI's own
    nodes. A notice says so if they lie far outside.
    The result may share the image's memory: never write into it.
    """
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(
            f"{name} must be an image batch (batch, height, width, channels) with at least one "
            f"pixel, got shape {tuple(image.shape)}"
        )
    # ComfyUI's loaders put images on this device (the GPU with --gpu-only), so all images go there.
    # Apple's GPUs have no float64: it is converted before.
    image = to_rgb(image).float().to(comfy.model_management.intermediate_device())
    low, high = find_range(image)
    if not (isfinite(low) and isfinite(high)):
        bad = int((~image.isfinite()).sum())
        raise ValueError(
            f"{name} holds {bad} values that are NaN or infinite. The node before it made them, "
            "often a VAE or model running in half precision: run that model in float32 or bfloat16"
        )
    if low < -MAX_OVERSHOOT or high > 1 + MAX_OVERSHOOT:
        give_notice_once(
            f"{name} holds values below 0 or above 1, as HDR images do: they are clipped. To keep them, "
            "tone-map the image to 0 to 1 before this node"
        )
    return (image.clamp(0, 1) if low < 0 or high > 1 else image).movedim(-1, 1)


def find_range(image: Tensor) -> list[float]:
    """Return the lowest and the highest value, with one read from the image's device."""
    if image.is_contiguous():
        return torch.stack(torch.aminmax(image)).tolist()
    # aminmax copies any other memory layout first, which takes up to eight times as long.
    return torch.stack((image.amin(), image.amax())).tolist()


def require_one_image(image: Tensor, node: str, name: str = "image") -> Tensor:
    """Convert an IMAGE as ``to_bchw`` does, but refuse a batch of several images.

    Args:
        node: Display name of the node that takes one image only.
    """
    single = to_bchw(image, name)
    if len(single) != 1:
        raise ValueError(
            f"{name} is a batch of {len(single)} images, but {node} takes one. Put Rebatch Images "
            f"(batch_size 1) before {node}: it then runs once for each image"
        )
    return single


def require_finite(values: Tensor, name_model: Callable[[], str], advice: str) -> Tensor:
    """Return the values if all are finite; otherwise raise an error that names the model that made them.

    The error also names the step of Chain Loop that the running node belongs to, if any.
    """
    # The range of a tensor is found in a tenth of the time in which its finite values are counted.
    if not all(map(isfinite, find_range(values))):
        bad = int((~values.isfinite()).sum())
        model = name_model()
        context: ExecutionContext | None = get_executing_context()
        step = STEP_ID.search(context.node_id) if context else None
        model = f"In step {step[1]}, {model[0].lower()}{model[1:]}" if step else model
        raise NotFiniteError(
            f"{model} made {bad} values that are NaN or infinite, which would give a black image. {advice}"
        )
    return values


def to_image(image: Tensor) -> Tensor:
    """Convert (B, C, H, W) to an IMAGE (B, H, W, C) in [0, 1].

    It shares the memory of the argument if no value needs clamping.
    """
    low, high = find_range(image)
    image = image.movedim(1, -1)
    if low >= 0 and high <= 1:
        return image
    return torch.clamp(image, 0, 1, out=torch.empty(image.shape, device=image.device))


def to_bounding_box(window: Window) -> dict[str, int]:
    x, y, width, height = (round(v) for v in window)
    return {"x": x, "y": y, "width": width, "height": height}
