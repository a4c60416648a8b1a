"""The adapter: the host's images, masks and folders in the form that coz/ works with."""

import json
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import sqrt
from pathlib import Path
from weakref import WeakKeyDictionary

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io, ui
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import CurrentNodeContext, get_executing_context
from server import PromptServer
from torch import Tensor

from ...coz.geometry import Target, Window
from ...coz.render.pillow import to_pillow
from ...coz.resample import resize
from ...coz.text.step_prompts import whole_characters
from .cache import CHILD_PREFIX

PACK = Path(__file__).parents[2]

MAX_PREVIEW_PIXELS = 768 * 768
"""Of the picture that a target is picked on: a panorama keeps as much detail as a square picture."""

MAX_PREVIEW_SIDE = 3072

MAX_MASK_BACKGROUND = 1 / 64
"""The greatest value that a mask may hold everywhere and still mark nothing. Load Image gives opaque
pixels 0.00005 (an opaque GIF, BMP or TGA) or 0.004 (a GIF, WebP, BMP or TGA with transparent pixels).
"""

MIN_MASK_RANGE = 1 / 512
"""Half a step of 8 bits: a mask whose values differ by less is the same everywhere."""

CLOSING_KEY = "coz_text"
"""Key of the ui output that js/closing.js draws."""

DOTS_KEY = "coz_dots"
"""Key of the (line, colour in CSS) of its lines that have a dot."""

MAX_OVERSHOOT = 1 / 8
"""How far below 0 or above 1 values are cut without a notice. Bicubic scaling, as the host does it,
overshoots an edge by up to 0.094 (3/32); what is lost of an HDR picture lies far above."""

CALLED = ".called"
"""Suffix of the id that a node has while another one calls it: see ``apart``."""

STEP_ID = re.compile(rf"\.coz_sr_(\d+)({re.escape(CALLED)})?$")
"""The id of the node that sharpens one step of Chain Loop."""


class NotFiniteError(ValueError):
    """Something made NaN or infinite values."""


def register_builtin_models() -> None:
    """Let the host's Load Upscale Model list the models that ship with the pack."""
    folder_paths.add_model_folder_path("upscale_models", str(PACK / "models"))


def node_of_graph(node_id: str) -> str:
    """Return the id of the node in the submitted prompt that runs, or that made the one that runs."""
    return get_progress_state().dynprompt.get_real_node_id(node_id.removesuffix(CALLED))


def show(text: str) -> None:
    """Show a line on the node that runs; for a child of Chain Loop, on the loop.

    Does nothing where ComfyUI is used as a library: there is no server then, and no page.
    """
    if context := get_executing_context():  # none where another node calls execute
        # Frontends before 1.58 take the text for HTML, in which "<" is itself before no letter only.
        # And half of a character, which an edited record may hold, cannot be sent.
        text = whole_characters(text.replace("<", "<\u200b"))
        server = getattr(PromptServer, "instance", None)
        # To whom it belongs: without its name it would show on every page, on the node of that id.
        if server is not None and server.client_id is not None:
            server.send_progress_text(text, node_of_graph(context.node_id), server.client_id)


@dataclass
class Said:
    """What the nodes of one prompt have said so far."""

    notices: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By node; the children of one expansion share a list."""
    texts: defaultdict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """By the node that the page shows, the closing text of each of its expansions."""
    dots: dict[str, str] = field(default_factory=dict)
    """By line of these texts, the colour of its dot."""
    given: set[tuple[str, str]] = field(default_factory=set)
    """The node that the page shows, and a line that ``notice_once`` has given it."""


_said: WeakKeyDictionary[object, Said] = WeakKeyDictionary()
"""By the host's progress of a prompt."""


def running() -> tuple[Said, str, str] | None:
    """What the prompt has said, the id of the node that runs, and its key in ``Said.notices``.

    None where no prompt runs: a script calls execute.
    """
    context = get_executing_context()
    if context is None:
        return None
    key = context.node_id.removesuffix(CALLED)
    expansion, _, name = key.rpartition(".")
    if name.startswith(CHILD_PREFIX):
        key = expansion
    return _said.setdefault(get_progress_state(), Said()), context.node_id, key


def notice(text: str) -> None:
    """Show a line as ``show`` does, warn in the log, and keep it for ``closing``."""
    logging.getLogger("chain_of_zoom").warning(text)
    show(text)
    if found := running():
        said, _, key = found
        said.notices[key].append(text)


def give_notices(*texts: str) -> list[str]:
    """Give each text that is not empty as a notice, and return all notices since ``take_notices``.

    For a node that expands: the child that collects the expansion shows them again.
    """
    for text in filter(None, texts):
        notice(text)
    return list(dict.fromkeys([*take_notices(), *filter(None, texts)]))


def take_notices() -> list[str]:
    """The notices since the last call, each once, of the node or expansion that runs."""
    if found := running():
        said, _, key = found
        return list(dict.fromkeys(said.notices.pop(key, [])))
    return []


def closing(text: str = "") -> dict[str, list[str]]:
    """Show the last lines of the node that runs; return the ui output that keeps them on the page.

    The notices of the run follow them. A child of an expanding node, or what a node calls, keeps
    nothing: the node that collects the expansion takes its notices and calls
    ``closing_of_expansion``.
    """
    if text:
        show(text)
    found = running()
    if found is None:
        return {}
    _, node_id, key = found
    if node_id != key:
        return {}
    # An empty list too: else the page would still show what an earlier run has said.
    return {CLOSING_KEY: [*filter(None, [whole_characters(join_lines(text, *take_notices()))])]}


def closing_of_expansion(text: str, dots: dict[str, str] | None = None) -> dict[str, list]:
    """As ``closing``, for the child that collects an expansion: its notices are in ``text``.

    An expanding node expands once for each picture of a list, and the frontend keeps the newest
    output only: so each text comes with the others of the same prompt. ``dots`` are the colours in
    CSS of the dots that the page draws before some lines.
    """
    show(text)
    found = running()
    if found is None:
        return {}
    said, node_id, _ = found
    texts = said.texts[node_of_graph(node_id)]
    texts[node_id] = whole_characters(text)
    in_order = sorted(texts, key=lambda child: (len(child), child))
    said.dots |= dots or {}
    return {CLOSING_KEY: [texts[child] for child in in_order], DOTS_KEY: [*said.dots.items()]}


def join_lines(*texts: str | None) -> str:
    """The texts that are not empty, one below the other."""
    return "\n".join(filter(None, texts))


def notice_once(text: str) -> None:
    """Show a line as ``notice`` does, once on a node in a prompt; a loop's children count as the loop."""
    if found := running():
        said, node_id, key = found
        given = node_of_graph(node_id), text
        if given in said.given:
            if text not in said.notices[key]:  # of another picture of a list: its text has it too
                said.notices[key].append(text)
            return
        said.given.add(given)
    notice(text)


def apart() -> AbstractContextManager:
    """For a node that calls others: inside, their own short progress does not show in its place."""
    context = get_executing_context()
    if context is None:
        return nullcontext()
    node_id = context.node_id.removesuffix(CALLED) + CALLED
    return CurrentNodeContext(context.prompt_id, node_id, context.list_index)


def time_left(started: float, done: int, count: int) -> str:
    """Of ``count`` like pieces of work begun at ``started``: ", about 3 min left", or nothing."""
    seconds = (time.monotonic() - started) / done * (count - done)
    if seconds < 5:
        return ""
    return (
        f", about {seconds:.0f} s left" if seconds < 90 else f", about {seconds / 60:.0f} min left"
    )


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


def picked_on(image: Tensor, target: Target) -> dict[str, list] | None:
    """What the target picker of the node that runs shows: the first picture of the batch.

    Only for nodes of the graph on the screen: not for the steps of Chain Loop, each of which would
    write a file, nor where another node calls execute.
    """
    context = get_executing_context()
    if context is None or context.node_id != node_of_graph(context.node_id):
        return None
    return {"coz_source": preview_of(image[:1], target)} | closing()


def require_options(node: type[io.ComfyNode], **chosen: dict | None) -> None:
    """Refuse a value of a dynamic combo that is none of its options.

    The host leaves such an input out, together with those nested in it.
    """
    for combo in node.define_schema().inputs:
        if combo.id not in chosen:
            continue
        options = [option.key for option in combo.options]
        value = chosen[combo.id]
        if not isinstance(value, dict) or value.get(combo.id) not in options:
            listed = ", ".join(f'"{option}"' for option in options[:-1])
            raise ValueError(
                f'{combo.id} must be {listed} or "{options[-1]}", and it is missing, linked or unknown. '
                f"Choose one on the node; in an API prompt give it as {combo.id}, and what belongs "
                f"to it as {combo.id}.NAME"
            )


def validate_options(node: type[io.ComfyNode], **chosen: dict | None) -> bool | str:
    """Call ``require_options`` for a node's ``validate_inputs``."""
    try:
        require_options(node, **chosen)
    except ValueError as error:
        return str(error)
    return True


def require_range(name: str, value: float, least: float, most: float, unit: str = "") -> None:
    """Refuse a linked value outside a widget's limits: the schema's hold for typed values only."""
    if not least <= value <= most:
        raise ValueError(f"{name} must be {least} to {most}{unit}, got {value:g}")


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
    low, high = torch.aminmax(image)  # before its axes move: of a view torch makes a copy
    if not (low.isfinite() and high.isfinite()):
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
        context = get_executing_context()
        step = STEP_ID.search(context.node_id) if context else None
        maker = f"In step {step[1]}, {maker[0].lower()}{maker[1:]}" if step else maker
        raise NotFiniteError(
            f"{maker} made {bad} values that are NaN or infinite, which would give a black image. {way_out}"
        )
    return values


def to_image(image: Tensor) -> Tensor:
    """(B, C, H, W) as an IMAGE: (B, H, W, C) float32 in [0, 1], a view where nothing is clamped."""
    low, high = torch.aminmax(image if image.is_contiguous() else image.movedim(1, -1))
    image = image.movedim(1, -1)
    if low >= 0 and high <= 1:
        return image
    return torch.clamp(image, 0, 1, out=torch.empty(image.shape, device=image.device))


def subtract_background(mask: Tensor) -> Tensor:
    """Return a mask (..., H, W) as (batch, H, W) in [0, 1], each without what it holds everywhere."""
    mask = mask.reshape(-1, *mask.shape[-2:]).float().clamp(0, 1)
    background = mask.amin((-2, -1), keepdim=True)
    # Over a whole picture, even 0.004 outweighs a small spot of ones.
    return torch.where(background < MAX_MASK_BACKGROUND, mask - background, mask)


def is_blank(mask: Tensor) -> bool:
    """Whether a mask marks no target: it is the same everywhere and below 1/64."""
    return (
        mask.ndim >= 2
        and mask.numel() > 0
        and bool(subtract_background(mask).amax() < MIN_MASK_RANGE)
    )


def target_of(
    center_x: float,
    center_y: float,
    mask: Tensor | None,
    tell: Callable[[str], None] = notice,
) -> Target:
    """The zoom target: the centroid of the mask where there is one, else the two fractions.

    A blank mask is none, and ``tell`` gets a line that says so.
    """
    if mask is None:
        return Target(center_x, center_y)
    if mask.ndim < 2 or 0 in mask.shape:
        raise ValueError(
            "mask must be a mask batch (batch, height, width) with at least one pixel, got shape "
            f"{tuple(mask.shape)}"
        )
    if bad := int((~mask.float().isfinite()).sum()):
        raise ValueError(f"mask holds {bad} values that are NaN or infinite: paint it anew")
    if is_blank(mask):
        tell(
            "mask is empty (the same everywhere and below 1/64, as Load Image gives for a picture "
            "without transparency): center_x and center_y are the target. To use the mask, paint "
            "the spot to zoom into"
        )
        return Target(center_x, center_y)
    mask = subtract_background(mask).sum(0)
    total = mask.sum()
    height, width = mask.shape
    x = (mask.sum(0) * (torch.arange(width).to(mask) + 0.5)).sum() / total / width
    y = (mask.sum(1) * (torch.arange(height).to(mask) + 0.5)).sum() / total / height
    return Target(float(x), float(y))


def to_bounding_box(window: Window) -> dict[str, int]:
    x, y, width, height = (round(v) for v in window)
    return {"x": x, "y": y, "width": width, "height": height}
