"""Save the user's marks on prompts, good or bad, as data for the training of the prompt LoRA.

The viewer saves the source and each frame of a chain as a file in the temporary folder: the layer files. The
name of the first layer file identifies the run; the record of the run is beside it. Prompt and images of a
mark come from there, never from the browser.

The marks are saved in the output folder; with --multi-user, in the folder of the user who made them.
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
from ..host.server import UnknownUserError, find_user_folder

ROUTE = "/chain_of_zoom/preference"

FOLDER = "chain-of-zoom"
"""Folder of the marks in ComfyUI's output folder, or in the folder of a user."""

FILE_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}\.png")

MAX_REQUEST_BYTES = 2**16
"""Maximum size of a request; a real one has about a hundred bytes."""

RUN_GONE = "The images of this run are no longer in ComfyUI's temporary folder. Run again."

_write_lock = Lock()


def keep_record(chain: ZoomChain, layer_files: list[str]) -> None:
    """Write the record that marks need into the temporary folder, next to the layers."""
    record = {"chain": chain.to_json(), "layers": layer_files}
    _get_record_path(layer_files[0]).write_text(json.dumps(record), "utf-8")


def add_mark(folder: Path, run: str, step: int, good: bool, user: str | None = None) -> bool:
    """Append a mark of the prompt of a step; return False if its last mark is the same.

    Args:
        folder: Folder of the marks.
        run: File name of the first layer that the viewer shows.
        step: Number of the step, from 1.
        good: The mark: good or bad.
        user: ComfyUI's id of the user who gave it; None without --multi-user.

    Raises:
        ValueError: If there is no such run or step, or nothing to judge.
        FileNotFoundError: If the run's files are gone.
        OSError: If the output folder cannot be written.
    """
    chain, layer_files = read_kept_record(run)
    if not 1 <= step <= chain.steps:
        raise ValueError(f"step must be 1 to {chain.steps}, got {step}")
    prompt = chain.prompts[step - 1]
    if not prompt:
        raise ValueError(f"step {step} has no prompt to judge")
    previous = Path(folder_paths.get_temp_directory(), layer_files[step]).read_bytes()
    frame = decode_png(previous, *chain.frames[step].shape[-2:])
    zoomed = _encode_view(frame, chain.windows[step])
    with _write_lock:
        subject = {
            "prompt": prompt,
            "previous": _keep_image(folder, previous),
            "zoomed": _keep_image(folder, zoomed),
        }
        marks = folder / "preferences.jsonl"
        if _find_last_mark(marks, subject) is good:
            return False
        entry = subject | ({} if user is None else {"user": user})
        entry |= {
            "good": good,
            "step": step,
            "factor": chain.compute_magnification(step + 1),
            "scale": chain.scale,
            "models": chain.models,
            "pack": __version__,
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        _append(marks, json.dumps(entry, ensure_ascii=False))
    return True


def serve_marks(routes: web.RouteTableDef) -> None:
    """Add the route through which the viewer marks prompts."""
    routes.post(ROUTE)(_answer)


async def _answer(request: web.Request) -> web.Response:
    try:
        folder, user = find_user_folder(request, FOLDER)
    except UnknownUserError as error:
        return _refuse(401, str(error))
    try:
        await request.content.readexactly(MAX_REQUEST_BYTES)
        mark = None  # too long for a mark
    except asyncio.IncompleteReadError as body:
        try:
            mark = json.loads(body.partial)
        except (ValueError, RecursionError):
            mark = None
    if not (
        isinstance(mark, dict)
        and isinstance(mark.get("run"), str)
        and type(mark.get("step")) is int
        and type(mark.get("good")) is bool
    ):
        return _refuse(400, 'expected JSON as {"run": "name.png", "step": 1, "good": true}')
    try:
        added = await asyncio.to_thread(
            add_mark, folder, mark["run"], mark["step"], mark["good"], user
        )
    except ValueError as error:
        return _refuse(400, str(error))
    except FileNotFoundError:
        return _refuse(404, RUN_GONE)
    except OSError as error:
        return _refuse(507, f"The mark could not be written: {error}")
    return web.json_response({"added": added})


def _refuse(status: int, reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=status)


def _is_file_name(name: str) -> bool:
    """Whether a name is safe as a file name, also on Windows, where opening nul.png reads a device."""
    return bool(FILE_NAME.fullmatch(name)) and not UNSAFE_NAME.search(name)


def _get_record_path(run: str) -> Path:
    return Path(folder_paths.get_temp_directory(), run).with_suffix(".json")


def read_kept_record(run: str) -> tuple[ZoomChain, list[str]]:
    """Return the chain of a run, with empty frames of the right size, and the files of its frames.

    The record is checked, because ComfyUI lets anyone upload any file into the temporary folder.

    Args:
        run: File name of the first layer that the viewer shows.

    Raises:
        ValueError: If this is not the name or the record of a run.
        FileNotFoundError: If its record is gone.
    """
    if not _is_file_name(run):
        raise ValueError(
            f"run must be the file name of the first image that a viewer shows, got {run!r}"
        )
    path = _get_record_path(run)
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise ValueError("it is too large")
        kept = json.loads(path.read_text("utf-8"))
        chain, layer_files = kept["chain"], kept["layers"]
        sizes = read_record(chain).sizes
        if len(layer_files) != len(sizes) or not all(map(_is_file_name, layer_files)):
            raise ValueError("its layers are not images of the viewer")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{path.name} is not a valid record of the viewer: {error}. Run again"
        ) from error
    # These frames take no memory: only their sizes are used.
    frames = tuple(torch.zeros(1).expand(1, 3, height, width) for width, height in sizes)
    return ZoomChain.from_json(chain, frames), layer_files


def _encode_view(frame: Tensor, window: Window) -> bytes:
    """Enlarge the window of a step and return the view as a PNG file."""
    view = resize(crop(frame, window), *frame.shape[-2:])
    file = BytesIO()
    to_pillow(view).save(file, "png")
    return file.getvalue()


def _keep_image(folder: Path, content: bytes) -> str:
    """Write the content to a file in the folder, unless it exists; return its relative path."""
    name = f"preferences/{hashlib.blake2b(content, digest_size=12).hexdigest()}.png"
    path = folder / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")  # a full disk must not leave an incomplete image
        part.write_bytes(content)
        os.replace(part, path)
    return name


def _find_last_mark(marks: Path, subject: dict) -> bool | None:
    """Return the last mark of this prompt and its images; None if there is none."""
    if not marks.exists():
        return None
    for line in reversed(marks.read_text("utf-8", "replace").split("\n")):
        try:
            entry = json.loads(line)
        except ValueError:  # an edited or incomplete line
            continue
        if isinstance(entry, dict) and subject.items() <= entry.items():
            return entry.get("good")
    return None


def _append(marks: Path, line: str) -> None:
    with marks.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a full disk left an incomplete line: start a new one
                line = "\n" + line
        # An edited record may hold a lone surrogate, which is not valid UTF-8: write it as \udXXX, as JSON
        # allows.
        file.write(f"{line}\n".encode("utf-8", "backslashreplace"))
