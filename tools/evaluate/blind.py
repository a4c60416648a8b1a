"""Make a page of pairs for people to judge: one image at one scale by two hidden arms."""

import json
import random
from collections import Counter
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import combinations
from math import lcm
from pathlib import Path

from PIL import Image

from .pictures import crop_view, encode_png, encode_webp, open_rgb, read_frame
from .report import KEY_FILE, make_environment, read_store
from .scores import Scores
from .store import input_path

PAGE = "blind.html"
BLIND_QUALITY = 95
MAX_LOSSLESS_BYTES = 150_000
OVERVIEW_SIDE_PIXELS = 256
"""Side of the whole image that is shown beside a pair."""


@dataclass(frozen=True)
class Pair:
    """A question of the page. Only blind_key.json says which arm is on which side."""

    id: str
    image: str
    factor: float
    left: str
    right: str


def write_blind(out: Path, pairs: int, seed: int) -> None:
    """Write blind.html for the judges, and blind_key.json, which is not sent to them.

    All pairs of arms, and all scales, occur equally often. In each pair of arms, each is on the left as
    often as on the right. These counts differ by at most one.

    Raises:
        ValueError: If the store has too few results for that many pairs.
    """
    results, _, scores = read_store(out)
    chosen = choose_pairs(scores, pairs, seed)
    result_of = {(result.image, result.arm): result for result in results}
    content = json.dumps([[asdict(pair) for pair in chosen], sorted(r.key for r in results)])
    run = sha256(content.encode()).hexdigest()[:16]
    questions = []
    for pair in chosen:
        whole = open_rgb(input_path(out, pair.image))
        sides = {
            side: encode_webp(
                read_frame(out, result_of[pair.image, arm], pair.factor),
                BLIND_QUALITY,
                MAX_LOSSLESS_BYTES,
            )
            for side, arm in (("left", pair.left), ("right", pair.right))
        }
        crop = encode_png(crop_view(whole, pair.factor))
        small = whole.resize((OVERVIEW_SIDE_PIXELS, OVERVIEW_SIDE_PIXELS), Image.Resampling.LANCZOS)
        questions.append(
            {
                "id": pair.id,
                "factor": pair.factor,
                "whole": encode_webp(small),
                "crop": crop,
                **sides,
            }
        )
    page = make_environment().get_template("blind.html.jinja")
    key = {"run": run, "seed": seed, "arms": scores.arms, "pairs": [asdict(p) for p in chosen]}
    (out / KEY_FILE).write_text(json.dumps(key, indent=1) + "\n", "utf-8")
    (out / PAGE).write_text(page.render(run=run, questions=questions), "utf-8")


def choose_pairs(scores: Scores, pairs: int, seed: int) -> list[Pair]:
    """Choose the questions, in the order in which the page asks them.

    Raises:
        ValueError: If there are fewer than two arms, or fewer different questions.
    """
    meetings = list(combinations(scores.arms, 2))
    factors = list(scores.factors)
    most = len(meetings) * len(factors) * len(scores.images)
    if not most:
        raise ValueError(
            "--blind compares two arms or more on images for which all of them have a result"
        )
    if not 1 <= pairs <= most:
        raise ValueError(
            f"--blind takes 1 to {most} pairs here ({len(meetings)} pairs of arms, {len(factors)} "
            f"scales, {len(scores.images)} images), got {pairs}"
        )
    generator = random.Random(seed)  # noqa: S311 (not for secrets: a seed always gives the same pairs)
    for order in (meetings, factors):
        generator.shuffle(order)
    # Cycle through both lists, and shift the factors by one after each common period. So every
    # combination comes up equally often.
    shift = lcm(len(meetings), len(factors))
    shown: Counter[str] = Counter()
    asked: set[tuple[str, ...]] = set()
    turns = {meeting: generator.random() < 0.5 for meeting in meetings}
    chosen = []
    for i in range(pairs):
        meeting = meetings[i % len(meetings)]
        factor = factors[(i + i // shift) % len(factors)]
        cell = (*meeting, str(factor))
        free = [image for image in scores.images if (*cell, image) not in asked]
        fewest = min(shown[image] for image in free)
        image = generator.choice([image for image in free if shown[image] == fewest])
        shown[image] += 1
        asked.add((*cell, image))
        turns[meeting] = not turns[meeting]
        left, right = meeting if turns[meeting] else meeting[::-1]
        chosen.append(Pair(f"{generator.getrandbits(64):016x}", image, factor, left, right))
    generator.shuffle(chosen)
    return chosen
