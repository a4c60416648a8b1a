"""Cut crops from photographs."""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.contrib.concurrent import thread_map

from tools.image_file import to_png
from tools.train_grpo.photo import UnusableError, read_photo

from .checkpoint import write_whole
from .dataset import CROPS_FOLDER

PARTS_FOLDER = "parts"
"""Folder with a list of crops for each photograph that is done."""


class CropOptions(NamedTuple):
    """Settings that decide which crops are cut."""

    size: int = 512
    """Side of a crop in pixels."""
    crops: int = 4
    """Maximum number of crops of a photograph. They do not overlap."""
    seed: int = 0


def cut_crops(
    photos: dict[str, Path], out: Path, options: CropOptions
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Cut the photographs that are not done yet.

    Returns:
        Photograph -> files of its crops, and skipped photograph -> reason.
    """
    parts = {
        name: out / PARTS_FOLDER / f"{_hash(name, path)}.json" for name, path in photos.items()
    }

    def cut(name: str) -> None:
        part = parts[name]
        if not part.is_file():
            stem = out / CROPS_FOLDER / part.stem
            write_json(part, cut_photo(photos[name], name, stem, options))

    # Pillow runs outside Python's lock.
    thread_map(cut, photos, max_workers=os.cpu_count(), desc="Cutting", unit=" images")
    done = {name: json.loads(part.read_text("utf-8")) for name, part in parts.items()}
    crops = {name: part["crops"] for name, part in done.items() if "crops" in part}
    return crops, {name: part["skipped"] for name, part in done.items() if "skipped" in part}


def _hash(name: str, path: Path) -> str:
    """Return a hash that changes with the file."""
    state = path.stat()
    text = f"{name}/{state.st_size}/{state.st_mtime_ns}"
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def cut_photo(path: Path, name: str, stem: Path, options: CropOptions) -> dict:
    """Write crops of a photograph to ``stem``-0.png and so on; return their files, or the reason for none."""
    try:
        photo = read_photo(path)
        windows = choose_windows(photo.size, name, options)
    except UnusableError as error:
        return {"skipped": str(error)}
    files = []
    for number, window in enumerate(windows):
        files.append(f"{stem.name}-{number}.png")
        write_whole(stem.with_name(files[-1]), to_png(photo.crop(window)))
    return {"crops": files}


def choose_windows(
    size: tuple[int, int], name: str, options: CropOptions
) -> list[tuple[int, int, int, int]]:
    """Choose windows of a grid in the middle of a photograph at random; its name is part of the seed.

    Raises:
        UnusableError: If the photograph is smaller than one.
    """
    (width, height), side = size, options.size
    columns, rows = width // side, height // side
    if not columns * rows:
        raise UnusableError(f"{width} x {height} pixels: at least {side} x {side} are needed")
    rng = np.random.default_rng(list(f"{options.seed}/{name}".encode()))
    count = min(options.crops, columns * rows)
    chosen = sorted(rng.choice(columns * rows, count, replace=False).tolist())
    left, top = (width - columns * side) // 2, (height - rows * side) // 2
    corners = [(left + i % columns * side, top + i // columns * side) for i in chosen]
    return [(x, y, x + side, y + side) for x, y in corners]


def write_json(path: Path, content: object) -> None:
    write_whole(path, json.dumps(content, indent=1).encode() + b"\n")
