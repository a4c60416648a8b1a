"""People's marks on prompts, good or bad, kept where the training of the prompt LoRA finds them.

A run that the viewer shows is known by the file name of its first layer in the temporary folder.
Its record lies beside it; prompt and pictures of a mark come from there, never from the browser.

The marks lie in the output folder; where the host has several users (--multi-user), in the folder
of the user who made them.
"""

import asyncio
import hashlib
import json
import os
import re
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from threading import Lock

import folder_paths
import torch
from aiohttp import web
from torch import Tensor

from ...coz import __version__
from ...coz.chain.folder import MAX_RECORD_BYTES, UNSAFE_NAME
from ...coz.chain.png import decode_png
from ...coz.chain.schema import read_record
from ...coz.chain.zoom_chain import ZoomChain
from ...coz.geometry import Window
from ...coz.render.pillow import to_pillow
from ...coz.resample import crop, resize
from ..host.server import UnknownUserError, place_of

ROUTE = "/chain_of_zoom/preference"

FOLDER = "chain-of-zoom"
"""In ComfyUI's output folder, or in a user's."""

FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}\.png")

MOST = 2**16
"""Bytes of a request; real ones have a hundred."""

GONE = "The pictures of this run are no longer in ComfyUI's temporary folder. Run again."

_writing = Lock()


def keep_record(chain: ZoomChain, layers: list[str]) -> None:
    """Write what a mark needs beside the layers, which lie in the temporary folder."""
    record = {"chain": chain.to_json(), "layers": layers}
    _record_path(layers[0]).write_text(json.dumps(record), "utf-8")


def mark(folder: Path, run: str, step: int, good: bool, user: str | None = None) -> bool:
    """Append a verdict on the prompt of a step; False where it already is the last one on it.

    Args:
        folder: of the marks.
        run: File name of the first layer that the viewer shows.
        step: 1 for the first.
        good: The verdict.
        user: The host's id of who gave it, where it has several users.

    Raises:
        ValueError: If there is no such run or step, or nothing to judge.
        FileNotFoundError: If the run's files are gone.
        OSError: If the output folder cannot be written.
    """
    chain, layers = read_kept_record(run)
    if not 1 <= step <= chain.steps:
        raise ValueError(f"step must be 1 to {chain.steps}, got {step}")
    prompt = chain.prompts[step - 1]
    if not prompt:
        raise ValueError(f"step {step} has no prompt to judge")
    previous = Path(folder_paths.get_temp_directory(), layers[step]).read_bytes()
    frame = decode_png(previous, *chain.frames[step].shape[-2:])
    zoomed = _zoomed(frame, chain.windows[step])
    with _writing:
        judged = {
            "prompt": prompt,
            "previous": _keep_picture(folder, previous),
            "zoomed": _keep_picture(folder, zoomed),
        }
        lines = folder / "preferences.jsonl"
        if _last_verdict(lines, judged) is good:
            return False
        entry = judged | ({} if user is None else {"user": user})
        entry |= {
            "good": good,
            "step": step,
            "factor": chain.magnification(step + 1),
            "scale": chain.scale,
            "models": chain.models,
            "pack": __version__,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        _append(lines, json.dumps(entry, ensure_ascii=False))
    return True


def take_marks(routes: web.RouteTableDef) -> None:
    """Let the viewer mark prompts."""
    routes.post(ROUTE)(_answer)


async def _answer(request: web.Request) -> web.Response:
    try:
        folder, user = place_of(request, FOLDER)
    except UnknownUserError as error:
        return _refuse(401, str(error))
    try:
        await request.content.readexactly(MOST)
        wish = None  # too long for a mark
    except asyncio.IncompleteReadError as body:
        try:
            wish = json.loads(body.partial)
        except (ValueError, RecursionError):
            wish = None
    if not (
        isinstance(wish, dict)
        and isinstance(wish.get("run"), str)
        and type(wish.get("step")) is int
        and type(wish.get("good")) is bool
    ):
        return _refuse(400, 'expected JSON as {"run": "name.png", "step": 1, "good": true}')
    try:
        added = await asyncio.to_thread(mark, folder, wish["run"], wish["step"], wish["good"], user)
    except ValueError as error:
        return _refuse(400, str(error))
    except FileNotFoundError:
        return _refuse(404, GONE)
    except OSError as error:
        return _refuse(507, f"The mark could not be written: {error}")
    return web.json_response({"added": added})


def _refuse(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


def _is_file_name(name: str) -> bool:
    """Also on Windows, where opening nul.png or con.png reads a device."""
    return bool(FILE_NAME.fullmatch(name)) and not UNSAFE_NAME.search(name)


def _record_path(run: str) -> Path:
    return Path(folder_paths.get_temp_directory(), run).with_suffix(".json")


def read_kept_record(run: str) -> tuple[ZoomChain, list[str]]:
    """The chain of a run, its frames without their pixels, and the files that have these.

    Checked, as the host lets anyone upload a file of any name into the temporary folder.

    Args:
        run: File name of the first layer that the viewer shows.

    Raises:
        ValueError: If that is no run of a viewer.
        FileNotFoundError: If its record is gone.
    """
    if not _is_file_name(run):
        raise ValueError(f"run must be the file name of a viewer's first layer, got {run!r}")
    path = _record_path(run)
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError("it is too large")
        kept = json.loads(path.read_text("utf-8"))
        chain, layers = kept["chain"], kept["layers"]
        sizes = read_record(chain).sizes
        if len(layers) != len(sizes) or not all(map(_is_file_name, layers)):
            raise ValueError("its layers are no pictures of the viewer")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path.name} is no record of the viewer: {error}. Run again") from error
    # Without memory: only their sizes are asked for.
    frames = tuple(torch.zeros(1).expand(1, 3, height, width) for width, height in sizes)
    return ZoomChain.from_json(chain, frames), layers


def _zoomed(frame: Tensor, window: Window) -> bytes:
    """The view that the step enlarged, as a PNG file."""
    view = resize(crop(frame, window), *frame.shape[-2:])
    file = BytesIO()
    to_pillow(view).save(file, "png")
    return file.getvalue()


def _keep_picture(folder: Path, content: bytes) -> str:
    """Name of the file with that content, seen from the folder; written where it is new."""
    name = f"preferences/{hashlib.blake2b(content, digest_size=12).hexdigest()}.png"
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")  # a full disk must not leave half a picture
        part.write_bytes(content)
        os.replace(part, path)
    return name


def _last_verdict(lines: Path, judged: dict) -> bool | None:
    if not lines.exists():
        return None
    for line in reversed(lines.read_text("utf-8", "replace").split("\n")):
        try:
            entry = json.loads(line)
        except ValueError:  # somebody's own line, or half of one
            continue
        if isinstance(entry, dict) and judged.items() <= entry.items():
            return entry.get("good")
    return None


def _append(lines: Path, line: str) -> None:
    with lines.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # half a line, from a full disk: it must not swallow this one
                line = "\n" + line
        # Half of a character, which an edited record may hold, is no UTF-8, but its escape is JSON.
        file.write(f"{line}\n".encode("utf-8", "backslashreplace"))
