"""Make a data set of crops and their prompts from a folder of photographs."""

import errno
import json
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image
from safetensors.torch import save
from tqdm import tqdm

from tools.train_grpo.photo import choose_held_out, find_photos, name_photo

from .captions import find_device, load_tagger, load_writer
from .checkpoint import write_whole
from .crops import PARTS_FOLDER, CropOptions, cut_crops, write_json
from .dataset import CROPS_FOLDER, INDEX_FILE, TEXTS_FOLDER, find_text_file
from .memory import explain_out_of_memory
from .sd3 import load_text_encoders

OPTIONS_FILE = "prepare.json"
BATCH_SIZE = 8
"""Number of crops that are described, and of prompts that are encoded, in one batch."""

TEXT_BYTES = 589 * 4096 * 2
"""Size of the embeddings of a prompt."""

T = TypeVar("T")


class PrepareOptions(NamedTuple):
    """Settings of a data set."""

    crops: CropOptions = CropOptions()
    held_out: float = 0.02
    """Share of the photographs that are not trained on."""
    tagger: Path | None = None
    """The file of RAM, whose tags are the prompts."""
    vlm: str | None = None
    """A vision-language model that writes the prompts."""
    text_files: bool = False
    """Whether the prompt of a photograph is in a .txt file beside it."""
    text_encoders: str | None = None
    """SD3-medium in the layout of diffusers, which makes the embeddings to store."""


class Report(NamedTuple):
    crops: int
    held_out: int
    skipped: dict[str, str]
    """File -> reason why it was skipped."""


def prepare(images: Path, out: Path, options: PrepareOptions) -> Report:
    """Make a data set in ``out``, or complete an unfinished one."""
    if not images.is_dir():
        raise ValueError(f"{images} is not a folder")
    photos = {name_photo(path, images): path for path in find_photos(images)}
    if not photos:
        raise ValueError(f"{images} holds no images")
    advice = "close other programs that use it, and run the command again; what is finished is kept"
    with explain_full_disk(out), explain_out_of_memory(advice):
        _claim_folder(out, options)
        crops, skipped = cut_crops(photos, out, options.crops)
        if options.text_files:
            prompts, without = _read_text_files(photos, crops)
            skipped |= without
        else:
            prompts = _describe_crops(crops, out / CROPS_FOLDER, options)
        if not prompts:
            raise ValueError(
                f"no crops could be made: {len(skipped)} files were skipped, such as "
                + "; ".join(f"{name} ({reason})" for name, reason in list(skipped.items())[:3])
            )
        if options.text_encoders:
            encode_prompts(prompts.values(), out, options.text_encoders)
        return Report(*_write_index(crops, prompts, out, options), skipped)


@contextmanager
def explain_full_disk(out: Path) -> Iterator[None]:
    """Turn the error of a full disk into a ValueError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(
            f"the disk of {out} is full: make room and run it again; what is finished is kept"
        ) from error


def _claim_folder(out: Path, options: PrepareOptions) -> None:
    """Create ``out``, or check that its crops were made with the same options.

    Prompts and embeddings may be added to a data set without them.
    """
    given = options.crops._asdict() | {"text_files": options.text_files or None}
    for name in ("tagger", "vlm", "text_encoders"):
        model = getattr(options, name)
        given[name] = model and Path(model).name
    file = out / OPTIONS_FILE
    if file.is_file():
        before = json.loads(file.read_text("utf-8"))
        changed = [n for n in given if before.get(n) not in (None, given[n])]
        captions = [n for n in ("tagger", "vlm", "text_files") if before.get(n) or given[n]]
        if changed or len(captions) > 1:
            raise ValueError(
                f"{out} holds crops made with another {', '.join(changed or captions)}: use another folder "
                "or delete it"
            )
    elif out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} holds other files: use a new folder")
    for folder in (PARTS_FOLDER, CROPS_FOLDER):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_json(file, given)


def _read_text_files(
    photos: dict[str, Path], crops: dict[str, list[str]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Read the prompt of each crop beside its photograph.

    Returns:
        File of a crop -> prompt, and the photographs without a text with the reason.
    """
    prompts, without = {}, {}
    for name, files in crops.items():
        path = photos[name].with_suffix(".txt")
        try:
            prompts |= dict.fromkeys(files, " ".join(path.read_text("utf-8").split()))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            without[name] = f"{path.name} cannot be read: {reason}"
    return prompts, without


def _describe_crops(
    crops: dict[str, list[str]], folder: Path, options: PrepareOptions
) -> dict[str, str]:
    """Describe the crops whose text file does not exist yet; return file of a crop -> prompt."""
    files = [file for found in crops.values() for file in found]
    if not (options.tagger or options.vlm):
        return dict.fromkeys(files, "")
    texts = {file: (folder / file).with_suffix(".txt") for file in files}
    missing = [file for file in files if not texts[file].is_file()]
    if missing:
        write = load_tagger(options.tagger) if options.tagger else load_writer(str(options.vlm))
        for batch in _iterate_batches(missing, "Describing", "crop"):
            images = [[Image.open(folder / file).convert("RGB")] for file in batch]
            for file, text in zip(batch, write(images), strict=True):
                write_whole(texts[file], text.encode())
    return {file: text.read_text("utf-8").strip() for file, text in texts.items()}


def _iterate_batches(values: Sequence[T], what: str, unit: str) -> Iterator[Sequence[T]]:
    if find_device() == "cpu":
        print(
            f"There is no GPU, so each {unit} takes seconds. If you stop it, run it again to continue."
        )
    starts = range(0, len(values), BATCH_SIZE)
    for start in tqdm(starts, what, unit=unit, unit_scale=BATCH_SIZE):
        yield values[start : start + BATCH_SIZE]


def encode_prompts(prompts: Collection[str], out: Path, model: str) -> None:
    """Store the embeddings of the prompts that have none."""
    (out / TEXTS_FOLDER).mkdir(exist_ok=True)
    missing = [text for text in sorted({*prompts}) if not find_text_file(out, text).is_file()]
    needed, free = len(missing) * TEXT_BYTES, shutil.disk_usage(out).free
    if needed > free:
        raise ValueError(
            f"the embeddings of {len(missing)} prompts take {needed / 1e9:.3g} GB, but the disk of {out} "
            f"has {free / 1e9:.3g} GB left: make room, or leave out --text-encoders, so that training "
            "encodes the prompts"
        )
    if missing:
        encode = load_text_encoders(model)
        for batch in _iterate_batches(missing, "Encoding", "prompt"):
            for prompt, text, pooled in zip(batch, *encode(batch), strict=True):
                tensors = {"text": text.cpu(), "pooled": pooled.cpu()}
                write_whole(find_text_file(out, prompt), save(tensors))


def _write_index(
    crops: dict[str, list[str]], prompts: dict[str, str], out: Path, options: PrepareOptions
) -> tuple[int, int]:
    """List the crops that have a prompt; return the number of those to train on and of those held out."""
    held = choose_held_out(
        [name for name, files in crops.items() if files[0] in prompts], options.held_out
    )
    entries = [
        {"name": f"{name}#{i}", "file": file, "prompt": prompts[file], "held_out": held[name]}
        for name, files in crops.items()
        if name in held
        for i, file in enumerate(files)
    ]
    write_json(out / INDEX_FILE, {"texts": bool(options.text_encoders), "crops": entries})
    held_out = sum(entry["held_out"] for entry in entries)
    return len(entries) - held_out, held_out
