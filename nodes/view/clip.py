"""Make a video of a chain that the viewer shows: the flight that its Play button shows."""

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
from ...coz.render.zoom_video import Zoom, plan_zoom_times
from ..host.server import UnknownUserError, require_user
from .marks import GONE, read_kept_record
from .zoom_video import encode, film_size

ROUTE = "/chain_of_zoom/clip"

SECONDS_PER_STEP = 1.5
HOLD_SECONDS = 0.5
"""Of rest before and after the flight: js/viewer/play.js has the same."""

MAX_SECONDS = 10
"""Of a clip, with its rests. A longer flight is faster."""

FPS = 30

MAX_LONG_SIDE, MAX_SHORT_SIDE = 1920, 1080
"""Pixels. A chain of smaller frames gives a clip of their size."""

MAX_CHAIN_PIXELS = 2**27
"""Pixels of a chain's frames together. They are held as float32, 1.6 GB at the limit."""

PROGRESS_SECONDS = 0.25
"""Between two lines of progress; as soon a reader who is gone is noticed."""


class ClipCancelledError(Exception):
    pass


class Progress:
    """What the thread that renders and the one that answers say to each other."""

    def __init__(self):
        self.done = 0.0
        self.is_cancelled = Event()


def make_clips(routes: web.RouteTableDef) -> None:
    """Let the viewer save its flight. The answer is a line of JSON for each bit of progress."""
    one_at_a_time = asyncio.Lock()

    @routes.post(ROUTE)
    async def clip(request: web.Request) -> web.StreamResponse:
        try:
            require_user(request)
            chain, layers = await asyncio.to_thread(_find, request.query.get("run", ""))
        except UnknownUserError as error:
            return web.Response(status=401, text=str(error))
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        except FileNotFoundError:
            return web.Response(status=404, text=GONE)
        if one_at_a_time.locked():
            reason = "ComfyUI is already making another clip. Try again when it is done"
            return web.Response(status=409, text=reason)
        async with one_at_a_time:
            return await _stream(request, chain, layers)


def _find(run: str) -> tuple[ZoomChain, list[str]]:
    """A chain whose frames have no pixels yet, and the files that have them.

    Raises:
        ValueError: If no clip can be made of such a run.
        FileNotFoundError: If its files are gone.
    """
    chain, layers = read_kept_record(run)
    pixels = sum(frame.shape[-2] * frame.shape[-1] for frame in chain.frames)
    if pixels > MAX_CHAIN_PIXELS:
        raise ValueError(
            f"The frames of this chain have {pixels:,} pixels together, and a clip takes at most "
            f"{MAX_CHAIN_PIXELS:,}. Use CoZ Zoom Video"
        )
    if Zoom(chain, *_size(chain)).steps == 0:
        raise ValueError("This chain has only one frame: there is nothing to play")
    return chain, layers


def _size(chain: ZoomChain) -> tuple[int, int]:
    """Height and width of the clip."""
    rows, columns = chain.frames[-1].shape[-2:]
    shrink = min(1, MAX_LONG_SIDE / max(rows, columns), MAX_SHORT_SIDE / min(rows, columns))
    return film_size(chain.frames[-1], round(rows * shrink), round(columns * shrink))


async def _stream(request: web.Request, chain: ZoomChain, layers: list[str]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    progress = Progress()
    rendering = None
    try:
        await response.prepare(request)
        rendering = asyncio.ensure_future(asyncio.to_thread(_render, chain, layers, progress))
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


def _render(chain: ZoomChain, layers: list[str], progress: Progress) -> dict:
    """Render the clip into the temporary folder: ``file`` as ComfyUI's /view takes it, or ``error``."""
    folder = Path(folder_paths.get_temp_directory())
    height, width = _size(chain)
    try:
        pairs = zip(layers, chain.frames, strict=True)
        frames = tuple(_read(folder / name, *frame.shape[-2:]) for name, frame in pairs)
        zoom = Zoom(replace(chain, frames=frames), height, width)
        seconds = min(zoom.steps * SECONDS_PER_STEP, MAX_SECONDS - 2 * HOLD_SECONDS)
        times = plan_zoom_times(seconds, HOLD_SECONDS, FPS, "smooth")
        path = encode(_render_frames(zoom, times, progress), height, width, FPS)
    except ClipCancelledError:
        return {"error": "cancelled"}
    except FileNotFoundError:
        return {"error": GONE}
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        logging.getLogger("chain_of_zoom").warning("A clip could not be made: %s", error)
        return {"error": f"{error}"}
    return {"file": {"filename": path.name, "subfolder": "", "type": "temp"}}


def _read(path: Path, height: int, width: int) -> torch.Tensor:
    try:
        return decode_png(path.read_bytes(), height, width)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _render_frames(zoom: Zoom, times: list[float], progress: Progress) -> Iterator[torch.Tensor]:
    """The frames one by one, as long as the clip is wanted."""
    for k, frame in enumerate(zoom.render_frames(times)):
        if progress.is_cancelled.is_set():
            raise ClipCancelledError
        progress.done = k / len(times)
        yield frame
