"""Choose the best and worst images for the report, and encode them as data URLs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isnan
from pathlib import Path

import numpy as np
from PIL import Image

from tools.image_file import encode, make_data_url

from .job import Result
from .metrics import METRICS, Metric
from .scores import Scores
from .store import frame_path, input_path, truth_path
from .table import count_decimals, format_factor

MAX_SIDE_PIXELS = 512
"""Pixels a side of an image in the page: the size of a frame."""
WEBP_QUALITY = 82
MAX_LOSSLESS_BYTES = 40_000
MAX_PAGE_BYTES = 22_000_000
RANKED_BY = ("fidelity", "consistency", "naturalness")
SECOND_SHOWN_FACTOR = 16


@dataclass(frozen=True)
class ArmImage:
    """The image of one arm, with its text, seed and scores."""

    arm: str
    picture: str
    prompt: str
    seed: int
    scores: tuple[tuple[str, str], ...]


@dataclass
class Case:
    """One image at one scale, by all arms."""

    image: str
    factor: float
    metric: Metric
    badges: list[tuple[str, str]] = field(default_factory=list)
    """("best" or "worst", the arm and its value)."""
    whole: str = ""
    crop: str = ""
    side: int = 0
    """Side of the crop in pixels of the input."""
    truth: str = ""
    """Empty if there is no ground truth at this scale."""
    arms: list[ArmImage] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of characters of its data URLs."""
        pictures = (self.whole, self.crop, self.truth, *(arm.picture for arm in self.arms))
        return sum(map(len, pictures))

    @property
    def scale_text(self) -> str:
        return format_factor(self.factor)


def encode_webp(
    picture: Image.Image, quality: int = WEBP_QUALITY, max_lossless_bytes: int = MAX_LOSSLESS_BYTES
) -> str:
    """Encode the image as a data URL without metadata.

    It is lossless if it fits into ``max_lossless_bytes`` bytes. That is the case for smooth images, on which
    the blocks of lossy compression would be the most visible.
    """
    picture = picture.convert("RGB")
    if max(picture.size) > MAX_SIDE_PIXELS:
        picture.thumbnail((MAX_SIDE_PIXELS, MAX_SIDE_PIXELS), Image.Resampling.LANCZOS)
    file = encode(picture, "webp", lossless=True, quality=0, method=0)
    if len(file) > max_lossless_bytes:
        file = encode(picture, "webp", quality=quality, method=2)
    return make_data_url("webp", file)


def encode_png(picture: Image.Image) -> str:
    """Encode a crop of few pixels, which is shown enlarged, as a lossless data URL."""
    return make_data_url("png", encode(picture.convert("RGB"), "png"))


def crop_view(picture: Image.Image, factor: float) -> Image.Image:
    """Crop the middle of x_0 that a frame at ``factor`` shows."""
    side = max(1, round(picture.width / factor))
    corner = (picture.width - side) // 2
    return picture.crop((corner, corner, corner + side, corner + side))


def open_rgb(path: Path) -> Image.Image:
    with Image.open(path) as file:
        return file.convert("RGB")


def read_frame(out: Path, result: Result, factor: float) -> Image.Image:
    """Read the arm's frame at this scale."""
    step = [row.factor for row in result.rows].index(factor) + 1
    return open_rgb(frame_path(out, result, step))


def choose_cases(out: Path, results: list[Result], scores: Scores) -> tuple[list[Case], int]:
    """Choose the best and worst image of each arm; also return how many did not fit into the page.

    They are chosen at the deepest scale and at 16x, by the first metric measured there of the kinds RANKED_BY.
    """
    result_of = {(result.image, result.arm): result for result in results}
    found = _rank_cases(scores)
    shown: list[Case] = []
    size = 0
    for case in found:
        _add_images(out, result_of, scores, case)
        size += case.size
        if shown and size > MAX_PAGE_BYTES:
            break
        shown.append(case)
    return shown, len(found) - len(shown)


def _rank_cases(scores: Scores) -> list[Case]:
    if not scores.images:
        return []
    deepest = scores.factors[-1]
    found: dict[tuple[float, str], Case] = {}
    for factor in dict.fromkeys((deepest, SECOND_SHOWN_FACTOR)):
        if factor not in scores.factors:
            continue
        metric = scores.find_metric(*RANKED_BY, factor=factor)
        if metric is None:
            continue
        for arm, badge, image, value in _find_extremes(scores, metric, factor):
            case = found.setdefault((factor, image), Case(image, factor, metric))
            case.badges.append((badge, f"{arm}, {value}"))
    # Cases with the most badges come first, because the last ones may not fit.
    return sorted(found.values(), key=lambda c: (-c.factor, -len(c.badges), c.image))


def _find_extremes(
    scores: Scores, metric: Metric, factor: float
) -> Iterator[tuple[str, str, str, str]]:
    """Yield (arm, "best" or "worst", image, value)."""
    sign = -1 if metric.better == "lower" else 1
    for arm, row in zip(scores.arms, scores.get_values(metric, factor), strict=True):
        if np.isnan(row).all() or np.nanmin(row) == np.nanmax(row):
            continue
        for badge, find in (("worst", np.nanargmin), ("best", np.nanargmax)):
            place = find(sign * row)
            yield arm, badge, scores.images[place], _format_number(row[place])


def _add_images(
    out: Path, result_of: dict[tuple[str, str], Result], scores: Scores, case: Case
) -> None:
    whole = open_rgb(input_path(out, case.image))
    crop = crop_view(whole, case.factor)
    case.whole, case.crop, case.side = encode_webp(whole), encode_png(crop), crop.width
    chosen = [case.metric, *(scores.find_metric(kind, factor=case.factor) for kind in RANKED_BY)]
    names = dict.fromkeys([*(metric.name for metric in chosen if metric), "sharpness"])
    for arm in scores.arms:
        result, row = result_of[case.image, arm], scores.rows[case.image, arm, case.factor]
        values = [(METRICS[n].title, row.scores.get(n, np.nan)) for n in names]
        shown = tuple((title, _format_number(value)) for title, value in values if not isnan(value))
        picture = read_frame(out, result, case.factor)
        case.arms.append(ArmImage(arm, encode_webp(picture), row.prompt, row.seed, shown))
        case.truth = case.truth or _encode_truth(
            truth_path(out, case.image), case.factor, picture.width
        )


def _encode_truth(path: Path, factor: float, min_side: int) -> str:
    """Crop the ground truth as a frame at ``factor`` shows it; empty if it has too few pixels."""
    if not path.is_file():
        return ""
    view = crop_view(open_rgb(path), factor)
    return encode_webp(view) if view.width >= min_side else ""


def _format_number(value: float) -> str:
    return "∞" if np.isinf(value) else f"{value:.{count_decimals([value])}f}"
