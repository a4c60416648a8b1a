"""A saved chain: a folder with source.png, scale_0.png ... and chain.json.

The file names follow from the number of frames; no name is read from chain.json.
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
"""Prefix of a folder whose files are still being written."""

STALE_SECONDS = 3600
"""Age from which an unfinished folder counts as left over from a crash and is removed."""

MAX_RECORD_BYTES = 16 * 2**20
"""Maximum size of a chain.json; real ones have a few thousand bytes."""

MAX_BYTES_PER_PIXEL = 9
"""Maximum size of an image file per pixel: incompressible 16-bit RGBA takes 8 bytes."""

MAX_METADATA_BYTES = 64 * 2**20
"""Maximum size of what an image file holds besides its pixels: workflow, color profile."""

UNSAFE_NAME = re.compile(
    r'[<>:"|?*\x00-\x1f\ud800-\udfff]|[. ]$|^$|'
    r"^(con|conin\$|conout\$|prn|aux|nul|(com|lpt)[\d¹²³]) *(\.|$)",
    re.IGNORECASE,
)
"""Matches a folder name that Windows does not allow, ``.``, ``..``, or a lone surrogate."""

MAX_NAME_BYTES = 240
"""Maximum length of a folder name: file systems allow 255 bytes, and a number is appended."""

PLACEHOLDER = re.compile("%([^%]+)%")

FILLED_BY_PAGE = re.compile(r"[^.]+\.[^.]+|date:.*")
"""Matches the placeholders that ComfyUI's page fills in before it submits a prompt: ``%Node.widget%``
and ``%date:yyyy%``."""


def require_valid_prefix(prefix: str) -> str:
    """Refuse a prefix that some system does not allow as a subfolder's name.

    It may still contain placeholders such as ``%year%``.

    Returns:
        The prefix with backslashes replaced by slashes: both separate folders.

    Raises:
        ValueError: If a part of ``prefix`` is not allowed; the message names it.
    """
    for name in PLACEHOLDER.findall(prefix):
        if FILLED_BY_PAGE.fullmatch(name):
            raise ValueError(
                f"filename_prefix is {prefix!r}, and %{name}% was not filled in: ComfyUI's page "
                "fills it in if it finds that node and widget; in an API prompt it stays. Write the "
                "value itself, or use %year%, %month%, %day%, %hour%, %minute%, %second%"
            )
    parts = re.split(r"[/\\]", prefix)
    for part in parts:
        if UNSAFE_NAME.search(part):
            raise ValueError(
                f"filename_prefix is {prefix!r}, but some systems do not allow {part!r} as the name "
                "of a folder. Give a name below the output folder such as chain-of-zoom/chain, or "
                "chain-of-zoom/%year%-%month%-%day%"
            )
        if (size := len(part.encode())) > MAX_NAME_BYTES:
            raise ValueError(
                f"filename_prefix has a folder name of {size} bytes, {part[:20]!r}..., but at most "
                f"{MAX_NAME_BYTES} are allowed: shorten it"
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
    """Save a chain as a new folder in ``parent``. If that fails, no folder is left behind.

    Args:
        chain: Its frames have at most ``schema.MAX_CHAIN_PIXELS`` pixels together.
        parent: An existing folder.
        name: The part of the folder name before its number.
        number: The first number to try. If a folder has it, the next free number is taken.
        texts: Text chunks to store in each scale_*.png, by keyword.
        on_file: Called after each image with the number of images written so far.

    Returns:
        The folder, such as ``parent / "name_00001_"``.

    Raises:
        ValueError: If ``read_record`` would refuse the chain.
        OSError: If something could not be written.
    """
    for leftover in parent.glob(f"{UNFINISHED_PREFIX}*"):
        with suppress(FileNotFoundError):  # another process has just removed it
            if time.time() - leftover.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
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
                    if not folder.exists():  # otherwise another process has just taken the name
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
    """Write a chain's files into an existing folder; files of the same names are overwritten."""
    read_record(chain.to_json())  # refuse a chain that could not be read again
    hashes: list[str] = []
    for name, frame in zip(_image_names(len(chain.frames)), chain.frames, strict=True):
        file = encode_png(frame, texts if hashes else None)
        hashes.append(hashlib.sha256(file).hexdigest())
        _write(folder / name, file)
        on_file(len(hashes))
    record = json.loads(chain.to_json()) | {"sha256": hashes}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    # UTF-8 cannot encode a lone surrogate; JSON can hold its escape.
    _write(folder / RECORD_NAME, f"{text}\n".encode("utf-8", "backslashreplace"))


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # the content must be on disk before the folder is renamed


def read_chain(folder: Path) -> ZoomChain:
    """Read the chain in a folder, with its frames on the CPU.

    Raises:
        ValueError: As ``read_record_and_images``.
    """
    record, source, frames = read_record_and_images(folder)
    return ZoomChain.from_json(record, (source, *frames.unsqueeze(1)))


def read_record_and_images(folder: Path) -> tuple[str, Tensor, Tensor]:
    """Read the parts of the chain in a folder: its record, as JSON, and its images, on the CPU.

    Returns:
        The record, the source (1, 3, H, W), and the other frames as one batch (N, 3, h, w).

    Raises:
        ValueError: If a file is missing, damaged, changed or does not match the others. The message
            has its path and what to do.
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
    images = (
        _read_frame(folder / name, size, sha256)
        for name, size, sha256 in zip(_image_names(count), record.sizes, hashes, strict=True)
    )
    source, first = next(images), next(images)
    # Each frame is freed once it is in the batch. To join them all at the end would take twice the memory.
    frames = first.new_empty(count - 1, *first.shape[2:], 3).movedim(-1, 1)
    frames[:1] = first
    for k, frame in enumerate(images, 1):
        frames[k] = frame[0]
    return text, source, frames


def list_saved_chains(output: Path) -> list[str]:
    """List the folders below ``output`` that hold a chain, the newest first.

    Returns:
        Paths relative to ``output``, with forward slashes on every system.
    """
    found: list[tuple[float, str]] = []
    for place, folders, files in os.walk(output):
        folders[:] = [name for name in folders if not name.startswith(UNFINISHED_PREFIX)]
        folder = Path(place)
        if RECORD_NAME in files and folder != output:
            with suppress(OSError):  # it has just been deleted
                written = (folder / RECORD_NAME).stat().st_mtime
                found.append((-written, folder.relative_to(output).as_posix()))
    return [name for _, name in sorted(found)]


def fingerprint_files(folder: Path) -> str:
    """Return a text that changes when a file of a saved chain changes."""
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
            f'remove "sha256" from {path.with_name(RECORD_NAME)} to accept the images as they are'
        )
    try:
        return decode_png(file, height, width)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Put the saved file back") from error


def _read(path: Path, max_bytes: int) -> bytes:
    if path.resolve().parent != path.parent.resolve():
        raise ValueError(
            f"{path} is a link to a file in another folder: replace the link with the file itself"
        )
    try:
        if (size := path.stat().st_size) > max_bytes:
            raise ValueError(
                f"{path} has {size:,} bytes; it can have at most {max_bytes:,}: put the saved file back"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ValueError(
            f"{path} is missing. A saved chain has {RECORD_NAME}, source.png and scale_0.png, "
            "scale_1.png, ... in one folder: put the file back"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
