"""Keep the results of an evaluation in a folder, so that a later run can continue.

OUT/settings.json                        settings of the last run, for the report
OUT/asked.json                           keys of all jobs of the last run
OUT/inputs/NAME/x_0.png                  input of the arms, with ground_truth.png if there is one
OUT/results/ARM/STEM-HASH/x_1.png ...    the arm's frames, 16 bits
OUT/results/ARM/STEM-HASH/result.json    the rest of a result; it is written last
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .job import Job, Result

SETTINGS_FILE, JOB_KEYS_FILE, RESULT_FILE = "settings.json", "asked.json", "result.json"
MAX_STEM_CHARACTERS = 40

RESULT_ADAPTER = TypeAdapter(Result)


def result_folder(out: Path, arm: str, image: str) -> Path:
    """Return a folder that is unique for each image, also if two have the same stem."""
    stem = re.sub(r"[^\w.-]", "_", Path(image).stem)[:MAX_STEM_CHARACTERS]
    return out / "results" / arm / f"{stem}-{hashlib.sha256(image.encode()).hexdigest()[:8]}"


def frame_path(out: Path, result: Result, k: int) -> Path:
    """Return the path of x_k; k starts at 1."""
    return result_folder(out, result.arm, result.image) / f"x_{k}.png"


def input_path(out: Path, image: str) -> Path:
    """Return the path of x_0; its ground truth is in the same folder."""
    return out / "inputs" / image / "x_0.png"


def truth_path(out: Path, image: str) -> Path:
    return input_path(out, image).with_name("ground_truth.png")


def write_input(out: Path, image: str, x_0: bytes, truth: bytes | None) -> None:
    for path, content in ((input_path(out, image), x_0), (truth_path(out, image), truth)):
        if content is None:
            path.unlink(missing_ok=True)
        elif not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)


def write_result(out: Path, result: Result) -> None:
    """Store a result. If this is interrupted, there is no result."""
    folder = result_folder(out, result.arm, result.image)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT_FILE).unlink(missing_ok=True)
    for left in folder.glob("x_*.png"):
        left.unlink()
    for k, frame in enumerate(result.frames, 1):
        write_atomically(frame_path(out, result, k), frame)
    write_record(out, result)


def write_record(out: Path, result: Result) -> None:
    """Store a result whose frames are stored already."""
    record = asdict(replace(result, frames=()))
    for row in record["rows"]:
        row["scores"] = {name: to_json(value) for name, value in row["scores"].items()}
    text = json.dumps(record, indent=1, allow_nan=False)
    path = result_folder(out, result.arm, result.image) / RESULT_FILE
    write_atomically(path, f"{text}\n".encode())


def read_result(out: Path, job: Job) -> Result | None:
    """Read the stored result for the job's arm and image, which may have another key."""
    return _read(result_folder(out, job.arm, job.image) / RESULT_FILE)


def read_frames(out: Path, result: Result) -> tuple[bytes, ...]:
    count = len(result.rows)
    return tuple(frame_path(out, result, k).read_bytes() for k in range(1, count + 1))


def read_results(out: Path) -> list[Result]:
    """Read the results of the last run, without their frames."""
    path = out / JOB_KEYS_FILE
    keys = json.loads(path.read_text("utf-8")) if path.is_file() else None
    found = [_read(path) for path in sorted(out.glob(f"results/*/*/{RESULT_FILE}"))]
    return [result for result in found if result and (keys is None or result.key in keys)]


def write_settings(out: Path, settings: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Store the settings and keys of this run; ``read_results`` then ignores results with other keys."""
    write_atomically(out / SETTINGS_FILE, f"{json.dumps(settings, indent=1)}\n".encode())
    write_atomically(out / JOB_KEYS_FILE, f"{json.dumps(keys)}\n".encode())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, even on a crash or a full disk."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with unfinished.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def to_json(value: float) -> float | str:
    return value if isfinite(value) else str(value)


def _read(path: Path) -> Result | None:
    """Read a result; return None if there is no complete one."""
    try:
        return RESULT_ADAPTER.validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None
