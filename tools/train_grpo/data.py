"""Make a data set of views for GRPO from a folder of photographs, in the format of `datasets`."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import datasets
from datasets.arrow_writer import ArrowWriter
from tqdm import tqdm

from .chains import find_chains, make_chain_pairs
from .marks import Mark, make_mark_pairs, read_marks
from .pairs import CROPS, PairOptions, load_upscaler, make_pairs
from .photo import UnusableError, choose_held_out, find_photos, name_photo, read_photo

TEXT = datasets.Value("string")
NUMBERS = datasets.List(datasets.Value("float64"))
ROW_FEATURES = datasets.Features(
    {
        "prompt": [{"role": TEXT, "content": [{"type": TEXT, "text": TEXT}]}],
        "images": datasets.List(datasets.Image()),
        "pair": TEXT,
        "factor": datasets.Value("float64"),
        "origin": {
            "file": TEXT,
            "backbone": TEXT,
            "window": NUMBERS,
            "target": NUMBERS,
            "seed": datasets.Value("int64"),
        },
        "good": datasets.List(TEXT),
        "bad": datasets.List(TEXT),
    }
)
"""A row in TRL's conversational format: TRL inserts ``images`` at the placeholders in the prompt."""

OPTIONS_FILE = "prepare.json"
PARTS_FOLDER = "parts"
"""Folder with a file for each source that is done: its rows, or the reason why there are none."""

SKIPPED_SUFFIX = ".skipped"


class Source(NamedTuple):
    """A photograph, or the folder of a chain, from which pairs are made."""

    name: str
    """Path below the folder of photographs, with forward slashes."""
    path: Path
    is_chain: bool

    def compute_key(self) -> str:
        """Compute a hash that changes with the file."""
        state = (self.path / "chain.json" if self.is_chain else self.path).stat()
        text = f"{self.name}/{state.st_size}/{state.st_mtime_ns}"
        return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


class Report(NamedTuple):
    pairs: int
    held_out: int
    skipped: dict[str, str]
    """File, file:line of a mark, or marked prompt -> why it was skipped."""


def prepare(
    images: Path,
    out: Path,
    options: PairOptions,
    *,
    preferences: Path | None = None,
    held_out: float = 0.05,
    workers: int = 0,
) -> Report:
    """Make a data set with the splits train and held_out in ``out``, or continue an unfinished one.

    Raises:
        ValueError: If no pairs can be made, or ``out`` holds other files.
    """
    sources = find_sources(images)
    marks, skipped = read_marks(preferences) if preferences else ([], {})
    if not sources and not marks:
        given = f"{preferences} holds no marks" if preferences else "no --preferences are given"
        raise ValueError(f"{images} holds no images and no saved chains, and {given}")
    if options.backbone != CROPS:
        load_upscaler(options.backbone)  # reports a wrong file at once, not in each worker
    _claim_folder(out, options)
    keys = {source.compute_key(): source for source in sources}
    skipped |= _make_parts(keys, out / PARTS_FOLDER, options, workers or os.cpu_count() or 1)
    return _gather_parts(keys, marks, out, held_out, skipped)


def find_sources(folder: Path) -> list[Source]:
    """Find photographs and chains of CoZ Save Chain; the images in a chain's folder do not count."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder")
    chains = find_chains(folder)
    inside = set(chains)
    photos = [path for path in find_photos(folder) if path.parent not in inside]
    found = [(path, False) for path in photos] + [(path, True) for path in chains]
    return [Source(name_photo(path, folder), path, chain) for path, chain in found]


def _claim_folder(out: Path, options: PairOptions) -> None:
    """Create ``out``, or check that its pairs were made with the same options."""
    given = json.loads(json.dumps(options._asdict()))
    file = out / OPTIONS_FILE
    if file.is_file():
        before = json.loads(file.read_text("utf-8"))
        if before != given:
            changed = [name for name in given if given[name] != before.get(name)]
            raise ValueError(
                f"{out} holds pairs made with another {', '.join(changed)}: use another folder or delete it"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} holds other files: use a new folder")
    (out / PARTS_FOLDER).mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(given, indent=2) + "\n", "utf-8")


def _make_parts(
    keys: dict[str, Source], folder: Path, options: PairOptions, workers: int
) -> dict[str, str]:
    """Make the parts that do not exist yet; return the sources that cannot be used, and why."""
    missing = [
        (source, folder / key)
        for key, source in keys.items()
        if not any((folder / f"{key}{suffix}").is_file() for suffix in (".arrow", SKIPPED_SUFFIX))
    ]
    done = len(keys) - len(missing)
    with tqdm(total=len(keys), initial=done, unit=" images", desc="Preparing") as bar:
        for _ in _make_in_parallel(missing, options, min(workers, len(missing))):
            bar.update()
    files = {key: folder / f"{key}{SKIPPED_SUFFIX}" for key in keys}
    return {keys[key].name: f.read_text("utf-8") for key, f in files.items() if f.is_file()}


def _make_in_parallel(
    tasks: list[tuple[Source, Path]], options: PairOptions, workers: int
) -> Iterator[None]:
    if workers <= 1:
        for source, path in tasks:
            yield make_part(source, path, options)
        return
    context = get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _use_one_thread) as pool:
        try:
            for part in as_completed([pool.submit(make_part, *task, options) for task in tasks]):
                yield part.result()
        except BrokenProcessPool as error:
            raise ValueError(
                "a worker was killed, probably for lack of memory: run it again with fewer --workers; "
                "finished parts are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _use_one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def make_part(source: Source, path: Path, options: PairOptions) -> None:
    """Write the rows of a source to ``path``.arrow, or why there are none to ``path``.skipped."""
    new = path.with_name(f"{path.name}.new")
    try:
        if source.is_chain:
            rows = list(make_chain_pairs(source.path, source.name))
        else:
            rows = list(make_pairs(read_photo(source.path), source.name, options))
    except UnusableError as error:
        new.write_text(str(error), "utf-8")
        new.replace(path.with_name(path.name + SKIPPED_SUFFIX))
        return
    with ArrowWriter(path=str(new), features=ROW_FEATURES) as writer:
        for row in rows:
            writer.write(row)
        writer.finalize()
    new.replace(path.with_name(f"{path.name}.arrow"))


def _gather_parts(
    keys: dict[str, Source], marks: list[Mark], out: Path, share: float, skipped: dict[str, str]
) -> Report:
    files = {key: out / PARTS_FOLDER / f"{key}.arrow" for key in keys}
    names = {keys[key].name: str(file) for key, file in files.items() if file.is_file()}
    made = {name: datasets.Dataset.from_file(file) for name, file in names.items()}
    rows, unusable = make_mark_pairs(marks)
    skipped |= unusable
    marked = {
        n: datasets.Dataset.from_list([row], features=ROW_FEATURES) for n, row in rows.items()
    }
    splits = {"train": [], "held_out": []}
    for parts in (made, marked):
        for name, held in choose_held_out(parts, share).items():
            splits["held_out" if held else "train"].append(parts[name])
    if not splits["train"]:
        raise ValueError(
            f"no pairs could be made: {len(skipped)} files were skipped, such as "
            + "; ".join(f"{name} ({reason})" for name, reason in list(skipped.items())[:3])
        )
    # datasets can save an empty split, but not load it.
    whole = datasets.DatasetDict(
        {name: datasets.concatenate_datasets(parts) for name, parts in splits.items() if parts}
    )
    _save(whole, out / "data")
    held_out = len(whole["held_out"]) if splits["held_out"] else 0
    return Report(len(whole["train"]), held_out, skipped)


def _save(whole: datasets.DatasetDict, path: Path) -> None:
    new, old = path.with_name("data.new"), path.with_name("data.old")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    whole.save_to_disk(str(new))
    if path.exists():
        path.rename(old)
    new.rename(path)
    shutil.rmtree(old, ignore_errors=True)
