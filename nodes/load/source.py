"""Serve the image of a loader node to the target picker, as that node loads it.

A browser would decode the same file differently: it applies EXIF mirroring, ICC profiles and
transparency, and ComfyUI's loader may not.
"""

import asyncio
import base64
import logging
import os
import secrets
import stat
from collections.abc import Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PureWindowsPath

import comfy.model_management
import folder_paths
from aiohttp import ETag, web
from PIL import Image

from ..host.images import downscale_to_preview, to_bchw
from .sample_picture import PICTURES, list_samples, run_loader_node

ROUTE = "/chain_of_zoom/source"

FILE_INPUTS = {"LoadImage": "image", "LoadImageOutput": "image", "CoZSamplePicture": "picture"}
"""Loader nodes -> the input that names the file."""

MAX_SOURCE_PIXELS = 2**26
"""Maximum number of pixels in all animation frames of a file. Loading takes up to 33 bytes a pixel:
at most 2.2 GB."""

MIN_ANIMATION_FRAME_PIXELS = 2**12
"""A smaller animation frame counts as this many pixels: loading millions of tiny ones is slow too."""

MAX_CACHED_SOURCES = 8
"""Number of previews in memory, up to 2 MB each."""

SERVER_START_ID = secrets.token_hex(4)
"""Part of each file's state: after a restart, another version of ComfyUI may load it differently."""


class TooLargeError(Exception):
    """A file holds more than MAX_SOURCE_PIXELS."""


def serve_sources(routes: web.RouteTableDef) -> None:
    """Add the route through which the page shows a loader's image before anything has run."""
    one_at_a_time = asyncio.Lock()  # so that the memory for loading does not multiply

    @routes.get(ROUTE)
    async def source(request: web.Request) -> web.Response:
        async with one_at_a_time:
            return await asyncio.to_thread(_answer, request.query, request.if_none_match or ())


def _answer(query: Mapping[str, str], known: tuple[ETag, ...]) -> web.Response:
    node, name = query.get("node"), query.get("image")
    if node not in FILE_INPUTS or not name:
        return _refuse(400, f"expected ?node=NODE&image=FILE, NODE one of {', '.join(FILE_INPUTS)}")
    try:
        path = _find_path(node, name)
        if path is None:
            return _refuse(403, f"{name!r} is not in ComfyUI's input, output or temp folder")
        facts = path.stat()
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return _refuse(404, f"there is no file {name!r}")
    if not stat.S_ISREG(facts.st_mode):
        return _refuse(404, f"{name!r} is not a file")
    state = f"{facts.st_mtime_ns:x}-{facts.st_ctime_ns:x}-{facts.st_size:x}-{SERVER_START_ID}"
    version = {"state": state, "changed": max(facts.st_mtime_ns, facts.st_ctime_ns) / 1e6}
    if any(tag.value == state for tag in known):
        response = web.Response(status=304)
    elif comfy.model_management.intermediate_device().type != "cpu":
        # Loading would take GPU memory that ComfyUI has not reserved.
        return _refuse(501, "with --gpu-only, the picker shows images only after a run", version)
    else:
        try:
            response = web.json_response(_load(node, name, path, state) | version)
        except (TooLargeError, Image.DecompressionBombError):
            reason = f"{name!r} has more than {MAX_SOURCE_PIXELS} pixels"
            return _refuse(413, f"{reason}: the picker shows it only after a run", version)
        except Exception as error:  # decoders raise many kinds of errors for damaged files
            logging.getLogger("chain_of_zoom").info("The picker cannot show %r: %s", name, error)
            return _refuse(415, f"{name!r} cannot be shown before a run", version)
    response.etag = state
    response.headers["Cache-Control"] = (
        "no-cache"  # the browser keeps it and revalidates it each time
    )
    return response


def _refuse(status: int, reason: str, version: dict | None = None) -> web.Response:
    return web.json_response({"error": reason} | (version or {}), status=status)


def _find_path(node: str, name: str) -> Path | None:
    """Return the file that a loader node loads for a name; None if it lies outside its folder."""
    if node == "CoZSamplePicture":
        return PICTURES / name if name in list_samples() else None
    name, folder = folder_paths.annotated_filepath(name)
    if PureWindowsPath(name).root:  # \\server\share: realpath would connect to that server
        return None
    folder = os.path.realpath(folder or folder_paths.get_input_directory())
    path = Path(os.path.realpath(os.path.join(folder, name)))
    return path if path.is_relative_to(folder) else None


@lru_cache(maxsize=MAX_CACHED_SOURCES)
def _load(node: str, name: str, path: Path, state: str) -> dict:
    """Load an image with a loader node; return its preview and its full size.

    Args:
        state: State of the file, which is part of the cache key.

    Raises:
        TooLargeError: If the file holds more than ``MAX_SOURCE_PIXELS``.
        Exception: Any error of Pillow or of ComfyUI's loader about the content of the file.
    """
    with Image.open(path) as file:  # reads the header only, and refuses videos
        frame_pixels = max(file.width * file.height, MIN_ANIMATION_FRAME_PIXELS)
        if frame_pixels * getattr(file, "n_frames", 1) > MAX_SOURCE_PIXELS:
            raise TooLargeError
    image = to_bchw(run_loader_node(node, **{FILE_INPUTS[node]: name})[:1])
    small = downscale_to_preview(image)
    content = BytesIO()
    # Round down, as ComfyUI does when it saves the preview that the picker shows after a run.
    Image.fromarray((small[0] * 255).byte().numpy()).save(content, "png", compress_level=4)
    return {
        "width": image.shape[-1],
        "height": image.shape[-2],
        "png": base64.b64encode(content.getvalue()).decode(),
    }
