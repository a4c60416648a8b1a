"""Save the zoom that the viewer's Play button shows as a video, called a clip."""

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import folder_paths
import torch
from aiohttp import web

from ...coz.chain.png import decode_png
from ...coz.chain.zoom_chain import ZoomChain
from ...coz.render.zoom_video import ZoomVideo, plan_zoom_positions
from ..host.server import UnknownUserError, require_user
from .marks import RUN_GONE, read_kept_record
from .zoom_video import choose_video_size, count_render_threads, write_video

ROUTE = "/chain_of_zoom/clip"

SECONDS_PER_STEP = 1.5
HOLD_SECONDS = 0.5
"""Rest before and after the zoom. js/viewer/play.js has the same values."""

MAX_SECONDS = 10
"""Maximum length of a clip with its rests: a longer zoom is played faster."""

FPS = 30

MAX_LONG_SIDE, MAX_SHORT_SIDE = 1920, 1080
"""Maximum size of a clip in pixels. If the frames are smaller, the clip has their size."""

MAX_CHAIN_PIXELS = 2**27
"""Maximum number of pixels in all frames of a chain. In memory they are float32, 1.6 GB at the limit."""

PROGRESS_SECONDS = 0.25
"""Time between two lines of progress, and until a closed connection is noticed."""


class ClipCancelledError(Exception):
    """The user cancelled the clip or closed the page."""


class Progress:
    """State that the rendering thread shares with the thread that answers the request."""

    def __init__(self):
        self.done = 0.0
        self.is_cancelled = Event()


def serve_clips(routes: web.RouteTableDef) -> None:
    """Add the route that makes a clip. It answers with lines of JSON: progress, then the file or an error."""
    one_at_a_time = asyncio.Lock()

    @routes.post(ROUTE)
    async def clip(request: web.Request) -> web.StreamResponse:
        try:
            require_user(request)
            chain, layer_files = await asyncio.to_thread(_find_chain, request.query.get("run", ""))
        except UnknownUserError as error:
            return web.Response(status=401, text=str(error))
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        except FileNotFoundError:
            return web.Response(status=404, text=RUN_GONE)
        if one_at_a_time.locked():
            reason = "ComfyUI is already making another clip. Try again when it is done"
            return web.Response(status=409, text=reason)
        async with one_at_a_time:
            return await _stream(request, chain, layer_files)


def _find_chain(run: str) -> tuple[ZoomChain, list[str]]:
    """Return the chain of a run, with empty frames of the right size, and the files of its frames.

    Raises:
        ValueError: If no clip can be made of this run.
        FileNotFoundError: If its files are gone.
    """
    chain, layer_files = read_kept_record(run)
    pixels = sum(frame.shape[-2] * frame.shape[-1] for frame in chain.frames)
    if pixels > MAX_CHAIN_PIXELS:
        raise ValueError(
            f"The frames of this chain have {pixels:,} pixels together, but the maximum for a clip is "
            f"{MAX_CHAIN_PIXELS:,}. Use CoZ Zoom Video instead"
        )
    if ZoomVideo(chain, *_choose_size(chain)).steps == 0:
        raise ValueError("This chain has only one frame: there is nothing to play")
    return chain, layer_files


def _choose_size(chain: ZoomChain) -> tuple[int, int]:
    """Return height and width of the clip."""
    rows, columns = chain.frames[-1].shape[-2:]
    shrink = min(1, MAX_LONG_SIDE / max(rows, columns), MAX_SHORT_SIDE / min(rows, columns))
    return choose_video_size(chain.frames[-1], round(rows * shrink), round(columns * shrink))


async def _stream(
    request: web.Request, chain: ZoomChain, layer_files: list[str]
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    progress = Progress()
    rendering = None
    try:
        await response.prepare(request)
        rendering = asyncio.ensure_future(asyncio.to_thread(_render, chain, layer_files, progress))
        while not rendering.done():
            await _write_line(response, progress=progress.done)
            await asyncio.wait({rendering}, timeout=PROGRESS_SECONDS)
        await _write_line(response, **rendering.result())
        await response.write_eof()
    except ConnectionError:  # the viewer cancelled, or its page was closed
        logging.getLogger("chain_of_zoom").info("A clip was cancelled")
    finally:
        progress.is_cancelled.set()
        if rendering is not None:  # the next clip has to wait for it
            await asyncio.wait({rendering})
    return response


async def _write_line(response: web.StreamResponse, **values) -> None:
    await response.write(f"{json.dumps(values)}\n".encode())


def _render(chain: ZoomChain, layer_files: list[str], progress: Progress) -> dict:
    """Render the clip into the temporary folder; return ``file`` for ComfyUI's /view, or ``error``."""
    folder = Path(folder_paths.get_temp_directory())
    height, width = _choose_size(chain)
    try:
        pairs = zip(layer_files, chain.frames, strict=True)
        frames = tuple(_read(folder / name, *frame.shape[-2:]) for name, frame in pairs)
        zoom = ZoomVideo(replace(chain, frames=frames), height, width)
        seconds = min(zoom.steps * SECONDS_PER_STEP, MAX_SECONDS - 2 * HOLD_SECONDS)
        positions = plan_zoom_positions(seconds, HOLD_SECONDS, FPS, "smooth")
        path = write_video(_render_frames(zoom, positions, progress), height, width, FPS)
    except ClipCancelledError:
        return {"error": "cancelled"}
    except FileNotFoundError:
        return {"error": RUN_GONE}
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        logging.getLogger("chain_of_zoom").warning("A clip could not be made: %s", error)
        return {"error": f"{error}"}
    return {"file": {"filename": path.name, "subfolder": "", "type": "temp"}}


def _read(path: Path, height: int, width: int) -> torch.Tensor:
    try:
        return decode_png(path.read_bytes(), height, width)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _render_frames(
    zoom: ZoomVideo, positions: list[float], progress: Progress
) -> Iterator[torch.Tensor]:
    """Yield the frames one by one, until the clip is complete or cancelled."""
    threads = count_render_threads(zoom.height, zoom.width)
    for k, frame in enumerate(zoom.render_frames(positions, threads)):
        if progress.is_cancelled.is_set():
            raise ClipCancelledError
        progress.done = k / len(positions)
        yield frame
