"""The host's images in the form that coz/ works with."""

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
from .messages import STEP_ID, notice_once

MAX_PREVIEW_PIXELS = 768 * 768
"""Of the picture that a target is picked on: a panorama keeps as much detail as a square picture."""

MAX_PREVIEW_SIDE = 3072

MAX_OVERSHOOT = 1 / 8
"""How far below 0 or above 1 values are cut without a notice. Bicubic scaling, as the host does it,
overshoots an edge by up to 0.094 (3/32); what is lost of an HDR picture lies far above."""


class NotFiniteError(ValueError):
    """Something made NaN or infinite values."""


def preview_size(height: int, width: int) -> tuple[int, int]:
    """The size of a picture's preview: MAX_PREVIEW_PIXELS and MAX_PREVIEW_SIDE at most."""
    pixels = height * width
    shrink = min(1, sqrt(MAX_PREVIEW_PIXELS / pixels), MAX_PREVIEW_SIDE / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def downscale_to_preview(image: Tensor) -> Tensor:
    """A (1, 3, H, W) picture as an IMAGE of the size of its preview."""
    return to_image(resize(image, *preview_size(*image.shape[-2:])))


def hide_files(files: list[ui.SavedResult] | dict) -> str:
    """Files for the pack's own page code, in a form in which no app shows them.

    An app of the frontend, the job history and the assets take every file of a ui output for a
    result, whatever its key.
    """
    return json.dumps(files)


def preview_of(image: Tensor, target: Target) -> list[str]:
    """A small copy of a (1, 3, H, W) picture in the host's temporary folder, as the page finds it.

    With the picture's own size in pixels, and the target that it was given with.
    """
    (saved,) = ui.PreviewImage(downscale_to_preview(image)).as_dict()["images"]
    height, width = image.shape[-2:]
    return [hide_files({**saved, "height": height, "width": width, "target": [*target]})]


def show_frame(image: Tensor) -> None:
    """Show a (1, 3, H, W) picture as the preview of the prompt that runs.

    An app of the frontend shows it until there is a result. Of a child of Chain Loop it does not
    show on the loop's node, which has its finished frames.
    """
    small = downscale_to_preview(image).movedim(-1, 1)
    comfy.utils.ProgressBar(1).update_absolute(0, preview=("JPEG", to_pillow(small), None))


def to_rgb(image: Tensor) -> Tensor:
    """(..., C) as (..., 3): grey is repeated, alpha dropped."""
    return image[..., :3] if image.shape[-1] >= 3 else image[..., :1].expand(*image.shape[:-1], 3)


def to_bchw(image: Tensor, name: str = "image") -> Tensor:
    """An IMAGE (B, H, W, C) of any float dtype as (B, 3, H, W) float32 in [0, 1].

    Grey is repeated, alpha dropped, values outside [0, 1] are clamped, as the host's own nodes do;
    a notice says so where they lie far outside.
    The result may share the image's memory: never write into it.
    """
    if image.ndim != 4 or 0 in image.shape:
        raise ValueError(
            f"{name} must be an image batch (batch, height, width, channels) with at least one "
            f"pixel, got shape {tuple(image.shape)}"
        )
    # Where the host's own loaders put images: --gpu-only moves it, and all must meet there.
    image = to_rgb(image).to(comfy.model_management.intermediate_device(), torch.float32)
    low, high = range_of(image)  # before its axes move: of a view torch makes a copy
    if not (isfinite(low) and isfinite(high)):
        bad = int((~image.isfinite()).sum())
        raise ValueError(
            f"{name} holds {bad} values that are NaN or infinite. The node before it made them, "
            "often a VAE or model running in half precision: try it in float32 or bfloat16"
        )
    if low < -MAX_OVERSHOOT or high > 1 + MAX_OVERSHOOT:
        notice_once(
            f"{name} holds values below 0 or above 1, as an HDR picture does: they are cut off. To keep "
            "them, map the picture's tones to 0 to 1 before this node"
        )
    return (image.clamp(0, 1) if low < 0 or high > 1 else image).movedim(-1, 1)


def range_of(image: Tensor) -> list[float]:
    """The lowest and the highest value. They leave their device together: each wait for it is long."""
    return torch.stack(torch.aminmax(image)).tolist()


def require_one_picture(image: Tensor, node: str, name: str = "image") -> Tensor:
    """As ``to_bchw``, but refuse a batch of several pictures for the node of this display name."""
    picture = to_bchw(image, name)
    if len(picture) != 1:
        raise ValueError(
            f"{name} is a batch of {len(picture)} pictures, and {node} takes one. Put Rebatch Images "
            f"(batch_size 1) before {node}: it then runs once for each"
        )
    return picture


def require_finite(values: Tensor, name_maker: Callable[[], str], way_out: str) -> Tensor:
    """Return the values, or refuse what their maker made, naming the step of a loop that it is."""
    bad = int((~values.isfinite()).sum())
    if bad:
        maker = name_maker()
        context: ExecutionContext | None = get_executing_context()
        step = STEP_ID.search(context.node_id) if context else None
        maker = f"In step {step[1]}, {maker[0].lower()}{maker[1:]}" if step else maker
        raise NotFiniteError(
            f"{maker} made {bad} values that are NaN or infinite, which would give a black image. {way_out}"
        )
    return values


def to_image(image: Tensor) -> Tensor:
    """(B, C, H, W) as an IMAGE: (B, H, W, C) float32 in [0, 1], a view where nothing is clamped."""
    low, high = range_of(image if image.is_contiguous() else image.movedim(1, -1))
    image = image.movedim(1, -1)
    if low >= 0 and high <= 1:
        return image
    return torch.clamp(image, 0, 1, out=torch.empty(image.shape, device=image.device))


def to_bounding_box(window: Window) -> dict[str, int]:
    x, y, width, height = (round(v) for v in window)
    return {"x": x, "y": y, "width": width, "height": height}
