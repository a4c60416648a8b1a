"""Read a chain's record from JSON and check every value, as the file may have been edited."""

import json
import math
import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from ..geometry import Target, Window

T = TypeVar("T")

RECORD_VERSION = 1
"""Version of the JSON format. Newer versions are refused."""

MAX_STEPS = 16

MIN_SCALE, MAX_SCALE = 1.01, 100
"""Limits of the scale of a step. Chain Loop offers 1.5 to 8; a scale of 1 would not zoom at all."""

MAX_CHAIN_PIXELS = 250_000_000
"""Maximum number of pixels of all frames together, 3 GB as float32: a small file can claim any size."""

SEED_BITS = 53
"""Size of a seed: JSON and JavaScript hold integers of this size exactly."""

WINDOW_TOLERANCE = 1e-6
"""Tolerance of a window's edges, as a fraction of the frame that it lies in: windows are rounded floats."""

AGREEMENT_LIMITS_DECIBELS = (-10, 1000)
"""Limits of an agreement: the PSNR in dB of a downscaled result with the image that the step enlarged. Most
are 0 to 99. An agreement below 0 is possible, because the downscaled result may have values outside
[0, 1]."""

REQUIRED_KEYS = ("version", "scale", "frames", "windows", "prompts", "seeds")

SHA256_PATTERN = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """What ``ZoomChain.to_json`` wrote, and the hashes that a folder adds."""

    scale: float
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each frame, the source first."""
    windows: tuple[Window, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    target: Target | None
    """None in the oldest records."""
    models: tuple[str, ...]
    sha256: tuple[str, ...] | None
    """SHA-256 of the frames' files, the source's first. None if the record states none."""
    agreements: tuple[float, ...]
    """In dB; NaN where not measured, empty in older records."""
    invented: tuple[float, ...]
    """0..1; NaN where not measured, empty in older records."""
    denoises: tuple[float, ...]
    """0..1; NaN where a step has none, empty in older records."""
    color_profile: str
    """Name of the source's color profile; "" in older records and if there is none or it is sRGB."""


def read_record(text: str) -> Record:
    """Parse a record; unknown keys are ignored.

    Raises:
        ValueError: If the text is no record, has a newer version, or holds an invalid value. The
            message names the field, the value and what was expected.
    """
    try:
        parsed: object = json.loads(text)
    except RecursionError as error:
        raise ValueError("this is no chain record: its brackets are nested too deep") from error
    except ValueError as error:
        raise ValueError(f"this is no chain record, because it is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"this is no chain record: it starts with {text[:20]!r}")
    record = cast("dict[str, Any]", parsed)
    version = record.get("version")
    if type(version) is int and version > RECORD_VERSION:
        raise ValueError(
            f"this is a chain record of version {version}; this pack reads up to {RECORD_VERSION}: "
            "update the pack"
        )
    missing = [key for key in REQUIRED_KEYS if key not in record]
    if missing:
        raise ValueError(f"this is no chain record: {', '.join(missing)} missing")
    if type(version) is not int or version < 1:
        raise _make_error("version", version, f"a whole number up to {RECORD_VERSION}")
    sizes = _read_sizes(record["frames"])
    steps = len(sizes) - 2
    if record.get("steps", steps) != steps:
        raise _make_error(
            "steps", record["steps"], f"{steps}, because frames has {len(sizes)} entries"
        )
    models, target, hashes, profile = (
        record.get(key) for key in ("models", "target", "sha256", "color_profile")
    )
    return Record(
        scale=_read_number("scale", record["scale"], MIN_SCALE, MAX_SCALE),
        sizes=sizes,
        windows=tuple(
            _read_window(f"windows[{k}]", window, *sizes[k])
            for k, window in enumerate(
                _require_count("windows", record["windows"], steps, steps + 1)
            )
        ),
        prompts=_read_each("prompts", record["prompts"], steps, steps, _read_text),
        seeds=_read_each("seeds", record["seeds"], steps, steps, _read_seed),
        target=None if target is None else _read_target(target),
        models=() if models is None else _read_models(models),
        sha256=None
        if hashes is None
        else _read_each("sha256", hashes, steps, steps + 2, _read_hash),
        agreements=_read_figures(
            "agreements", record.get("agreements"), steps, AGREEMENT_LIMITS_DECIBELS
        ),
        invented=_read_figures("invented", record.get("invented"), steps, (0, 1)),
        denoises=_read_figures("denoises", record.get("denoises"), steps, (0, 1)),
        color_profile="" if profile is None else _read_text("color_profile", profile),
    )


def _make_error(field: str, value: object, expected: str) -> ValueError:
    return ValueError(
        f"{field} is {reprlib.repr(value)}, expected {expected}. Undo the edit, or save the chain "
        "again"
    )


def _read_number(field: str, value: object, low: float, high: float) -> float:
    # NaN fails the comparison; a bool is not accepted as a number.
    if type(value) not in (int, float) or not low <= cast("float", value) <= high:
        raise _make_error(field, value, f"a number from {low} to {high}")
    return float(cast("float", value))


def _read_figures(
    field: str, value: object, steps: int, limits: tuple[float, float]
) -> tuple[float, ...]:
    if value is None or value == []:
        return ()

    def read_figure(field: str, value: object) -> float:
        return math.nan if value is None else _read_number(field, value, *limits)

    return _read_each(field, value, steps, steps, read_figure)


def _read_seed(field: str, value: object) -> int:
    return _read_integer(field, value, 0, 2**SEED_BITS - 1)


def _read_integer(field: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _make_error(field, value, f"a whole number from {low} to {high}")
    return value


def _as_list(value: object) -> list[Any]:
    """Return the value if it is a list, and an empty list if not; its caller checks the length."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def _require_count(field: str, value: object, steps: int, length: int) -> list[Any]:
    if len(items := _as_list(value)) != length:
        found = len(items) if isinstance(value, list) else reprlib.repr(value)
        raise ValueError(f"a chain of {steps} steps has {length} {field}, got {found}")
    return items


def _read_each(
    field: str, value: object, steps: int, length: int, read_item: Callable[[str, object], T]
) -> tuple[T, ...]:
    items = _require_count(field, value, steps, length)
    return tuple(read_item(f"{field}[{i}]", item) for i, item in enumerate(items))


def _read_text(field: str, value: object) -> str:
    if not isinstance(value, str):
        raise _make_error(field, value, "a quoted string")
    return value


def _read_sizes(value: object) -> tuple[tuple[int, int], ...]:
    if not 2 <= len(frames := _as_list(value)) <= MAX_STEPS + 2:
        expected = f"the [width, height] of the source and of 1 to {MAX_STEPS + 1} frames"
        raise _make_error("frames", value, expected)
    sizes: list[tuple[int, int]] = []
    for k, size in enumerate(frames):
        if len(sides := _as_list(size)) != 2:
            raise _make_error(f"frames[{k}]", size, "[width, height]")
        width, height = (_read_integer(f"frames[{k}]", side, 1, MAX_CHAIN_PIXELS) for side in sides)
        sizes.append((width, height))
        if k > 1 and sizes[k] != sizes[1]:
            raise _make_error(f"frames[{k}]", size, f"the size of the first frame, {frames[1]}")
    if (pixels := sum(width * height for width, height in sizes)) > MAX_CHAIN_PIXELS:
        raise ValueError(
            f"its frames have {pixels:,} pixels together; a saved chain may have {MAX_CHAIN_PIXELS:,}. "
            "Make it from a smaller image"
        )
    return tuple(sizes)


def _read_window(field: str, value: object, width: int, height: int) -> Window:
    numbers = _as_list(value)
    possible = len(numbers) == 4 and all(type(number) in (int, float) for number in numbers)
    if possible:
        # The numbers are checked before their sum, which may overflow. NaN fails every comparison.
        possible = all(
            -slack <= start <= side
            and 1 - slack <= length <= side + slack
            and start + length <= side + slack
            for start, length, side in zip(numbers[:2], numbers[2:], (width, height), strict=True)
            for slack in (WINDOW_TOLERANCE * side,)
        )
    if not possible:
        raise _make_error(
            field,
            value,
            "[x, y, width, height] of at least one pixel each way, inside a frame of "
            f"{width} x {height} pixels",
        )
    return Window(*map(float, numbers))


def _read_target(value: object) -> Target:
    if len(numbers := _as_list(value)) != 2:
        raise _make_error("target", value, "two fractions of the source, [x, y]")
    return Target(*(_read_number(f"target[{k}]", number, 0, 1) for k, number in enumerate(numbers)))


def _read_models(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _make_error("models", value, "a list of names")
    return tuple(
        _read_text(f"models[{i}]", name) for i, name in enumerate(_as_list(cast("object", value)))
    )


def _read_hash(field: str, value: object) -> str:
    if not SHA256_PATTERN.fullmatch(text := _read_text(field, value)):
        raise _make_error(field, value, "64 digits 0-9 a-f (or no sha256 at all)")
    return text
