"""A store of made-up results, for tests and benchmarks of the report: real files, invented scores."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tools.evaluate.job import Result, Row
from tools.evaluate.store import write_input, write_result, write_settings
from tools.image_file import to_png

ARMS = ("nearest", "bicubic", "onestep", "chain-null", "chain-vlm")
FACTORS = (4.0, 16.0, 64.0, 256.0)


def random_picture(chance: np.random.Generator, side: int) -> Image.Image:
    """About a photograph's worth of detail: noise over broad shapes."""
    shapes = Image.fromarray(chance.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side))
    noise = chance.normal(0, 6, (side, side, 3))
    return Image.fromarray((np.asarray(shapes) + noise).clip(0, 255).astype(np.uint8))


def random_png(chance: np.random.Generator, side: int) -> bytes:
    return to_png(random_picture(chance, side))


def random_result(
    image: str,
    arm: str,
    scores: Iterable[Mapping[str, float]],
    *,
    prompt: str = "",
    seed: int = 0,
    frames: Sequence[bytes] = (),
    missing: Mapping[str, str] | None = None,
    error: str | None = None,
) -> Result:
    """The result of one arm and picture; ``scores`` one scale after the other."""
    return Result(
        key=f"{image} {arm}",
        image=image,
        arm=arm,
        rows=tuple(
            Row(image, arm, factor, prompt, seed, dict(score))
            for factor, score in zip(FACTORS, scores, strict=False)
        ),
        missing=dict(missing or {}),
        frames=tuple(frames),
        models=("toy.safetensors",),
        versions={"Chain-of-Zoom": "0.1.0"},
        seconds=1.0,
        error=error,
        seed=seed,
    )


def write_store(
    out: Path, results: Sequence[Result], *, arms: Sequence[str] = ARMS, side: int = 512
) -> None:
    """The store of these results, with a picture for each."""
    chance = np.random.default_rng(0)
    for image in {result.image: None for result in results}:
        write_input(out, image, random_png(chance, side), None)
    for result in results:
        write_result(out, result)
    settings = {"arms": list(arms), "command": "python -m tools.evaluate", "date": "2026-11-21"}
    write_settings(out, settings, [result.key for result in results])
