"""A saved chain: a folder with source.png, scale_0.png ... and chain.json.

The files' names follow from their number; none is ever read out of chain.json.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from torch import Tensor

from .png import decode_png, encode_png
from .schema import read_record
from .zoom_chain import ZoomChain

RECORD_NAME = "chain.json"

UNFINISHED_PREFIX = ".coz-unfinished-"
"""Before the name of a folder that is being filled."""

STALE_SECONDS = 3600
"""Seconds after which nobody fills it any more."""

MAX_RECORD_BYTES = 16 * 2**20
"""Bytes of a chain.json; real ones have a few thousand."""

MAX_BYTES_PER_PIXEL = 9
"""Of a picture's file: 16-bit RGBA takes 8 where nothing can be compressed."""

MAX_METADATA_BYTES = 64 * 2**20
"""Bytes of a picture's file that are not its pixels: workflow, colour profile."""

UNSAFE_NAME = re.compile(
    r'[<>:"|?*\x00-\x1f\ud800-\udfff]|[. ]$|^$|'
    r"^(con|conin\$|conout\$|prn|aux|nul|(com|lpt)[\d¹²³]) *(\.|$)",
    re.IGNORECASE,
)
"""What Windows cannot hold as a folder's name, ``.`` and ``..``, and half of a character."""

MAX_NAME_BYTES = 240
"""Of one folder's name: file systems take 255, and a number is added."""

PLACEHOLDER = re.compile("%([^%]+)%")

FILLED_BY_PAGE = re.compile(r"[^.]+\.[^.]+|date:.*")
"""The placeholders that the page fills in before it submits a prompt: ``%Node.widget%`` and
``%date:yyyy%``, as the frontend tells them."""


def require_prefix(prefix: str) -> str:
    """Refuse what cannot name a folder below another on every system, ``%year%`` filled in or not.

    Returns:
        The prefix with slashes in place of backslashes: both begin a subfolder.

    Raises:
        ValueError: Naming the part of ``prefix`` that cannot be.
    """
    for name in PLACEHOLDER.findall(prefix):
        if FILLED_BY_PAGE.fullmatch(name):
            raise ValueError(
                f"filename_prefix is {prefix!r}, and %{name}% was not filled in: ComfyUI's page does that "
                "where it finds that node and widget, and nobody does it in an API prompt. Write the "
                "value itself, or use %year%, %month%, %day%, %hour%, %minute%, %second%"
            )
    parts = re.split(r"[/\\]", prefix)
    for part in parts:
        if UNSAFE_NAME.search(part):
            raise ValueError(
                f"filename_prefix is {prefix!r}, but {part!r} cannot name a folder on every "
                "system. Give a name below the output folder such as chain-of-zoom/chain, or "
                "chain-of-zoom/%year%-%month%-%day%"
            )
        if (size := len(part.encode())) > MAX_NAME_BYTES:
            raise ValueError(
                f"filename_prefix has a name of {size} bytes, {part[:20]!r}..., and a folder's name has at "
                f"most {MAX_NAME_BYTES}: shorten it"
            )
    return "/".join(parts)


def write_chain(
    chain: ZoomChain,
    parent: Path,
    name: str,
    number: int,
    texts: Mapping[str, str] | None = None,
    on_file: Callable[[int], None] = lambda count: None,
) -> Path:
    """Save a chain as a new folder in ``parent``; all of it, or nothing.

    Args:
        chain: Of at most ``record.MAX_PIXELS`` pixels.
        parent: It exists.
        name: Before the folder's number.
        number: The first to try. Where a folder has it, the next free one is taken.
        texts: Text chunks for the pictures of the scales.
        on_file: Told the count of written pictures after each.

    Returns:
        The folder, such as ``parent / "name_00001_"``.

    Raises:
        ValueError: If the chain is larger than a record may state, or holds what none can.
        OSError: If something could not be written. Nothing is left behind.
    """
    for left in parent.glob(f"{UNFINISHED_PREFIX}*"):
        with suppress(FileNotFoundError):  # another has removed it in this moment
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
    unfinished = parent / f"{UNFINISHED_PREFIX}{uuid4().hex}"
    try:
        unfinished.mkdir()
        write_files(chain, unfinished, texts, on_file)
        while True:
            folder = parent / f"{name}_{number:05}_"
            if not folder.exists():
                try:
                    return unfinished.rename(folder)
                except OSError:
                    if not folder.exists():  # else somebody has just taken the name
                        raise
            number += 1
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_files(
    chain: ZoomChain,
    folder: Path,
    texts: Mapping[str, str] | None = None,
    on_file: Callable[[int], None] = lambda count: None,
) -> None:
    """Write a chain's files into a folder that exists, over those of the same names."""
    read_record(chain.to_json())  # what could not be read again is not written
    hashes: list[str] = []
    for name, frame in zip(_image_names(len(chain.frames)), chain.frames, strict=True):
        file = encode_png(frame, texts if hashes else None)
        hashes.append(hashlib.sha256(file).hexdigest())
        _write(folder / name, file)
        on_file(len(hashes))
    record = json.loads(chain.to_json()) | {"sha256": hashes}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    # Half of a surrogate pair is no UTF-8, but its escape is JSON.
    _write(folder / RECORD_NAME, f"{text}\n".encode("utf-8", "backslashreplace"))


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # before the rename: it must not outlive a power cut alone


def read_chain(folder: Path) -> ZoomChain:
    """The chain that a folder holds, its frames on the CPU.

    Raises:
        ValueError: If a file is missing, damaged, changed or cannot belong to the others; with its
            path and what to do.
    """
    path = folder / RECORD_NAME
    content = _read(path, MAX_RECORD_BYTES)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: save it again with that encoding") from error
    try:
        record = read_record(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    count = len(record.sizes)
    hashes = record.sha256 or (None,) * count
    frames = tuple(
        _read_frame(folder / name, size, sha256)
        for name, size, sha256 in zip(_image_names(count), record.sizes, hashes, strict=True)
    )
    return ZoomChain.from_json(text, frames)


def list_saved_chains(output: Path) -> list[str]:
    """The folders below ``output`` that hold a chain, the newest first.

    Returns:
        Their paths from there, with forward slashes on every system.
    """
    found: list[tuple[float, str]] = []
    for place, folders, files in os.walk(output):
        folders[:] = [name for name in folders if not name.startswith(UNFINISHED_PREFIX)]
        folder = Path(place)
        if RECORD_NAME in files and folder != output:
            with suppress(OSError):  # deleted in this moment
                written = (folder / RECORD_NAME).stat().st_mtime
                found.append((-written, folder.relative_to(output).as_posix()))
    return [name for _, name in sorted(found)]


def fingerprint_files(folder: Path) -> str:
    """Another text after any file of a saved chain was changed."""
    files = [path for path in folder.iterdir() if path.name == RECORD_NAME or path.suffix == ".png"]
    states = sorted((path.name, path.stat()) for path in files)
    return str([(name, state.st_size, state.st_mtime_ns) for name, state in states])


def _image_names(count: int) -> list[str]:
    return ["source.png", *(f"scale_{i}.png" for i in range(count - 1))]


def _read_frame(path: Path, size: tuple[int, int], sha256: str | None) -> Tensor:
    width, height = size
    file = _read(path, MAX_BYTES_PER_PIXEL * width * height + MAX_METADATA_BYTES)
    if sha256 not in (None, hashlib.sha256(file).hexdigest()):
        raise ValueError(
            f"{path} was changed or swapped after the chain was saved. Put the saved file back, or "
            f'remove "sha256" from {path.with_name(RECORD_NAME)} to take the pictures as they are'
        )
    try:
        return decode_png(file, height, width)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Put the saved file back") from error


def _read(path: Path, most: int) -> bytes:
    if path.resolve().parent != path.parent.resolve():
        raise ValueError(f"{path} is a link out of its folder: put the file itself there")
    try:
        if (size := path.stat().st_size) > most:
            raise ValueError(
                f"{path} has {size:,} bytes; it can have at most {most:,}: put the saved file back"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is missing. A saved chain has {RECORD_NAME}, source.png and scale_0.png, "
            "scale_1.png, ... in one folder: put the file back"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
