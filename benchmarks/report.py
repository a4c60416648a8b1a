"""Time the evaluation's report of 100 images, 5 arms, 4 scales and all metrics, at 512 pixels.

Limits: 60 s on one core for report.html, table.md and scores.csv together, and 25 MB for report.html.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from coz.chain.png import encode_png
from coz.render.pillow import from_pillow
from tests.support.random_scores import ARMS, FACTORS, random_picture, random_result, write_store
from tools.evaluate.metrics import METRICS
from tools.evaluate.report import write_report
from tools.evaluate.store import frame_path

PICTURES, SIDE = 100, 512
MAX_SECONDS = 60
MAX_MEGABYTES = 25
DISTINCT_FRAMES = 8
"""Number of different frames. All others are links to them, because the report reads only a few."""


def fill_store(out: Path) -> None:
    rng = np.random.default_rng(0)
    results = [
        random_result(
            f"{i:03}.png",
            arm,
            [{name: float(rng.normal(20, 4)) for name in METRICS} for _ in FACTORS],
            prompt="brick wall, red, mortar, weathered",
        )
        for i in range(PICTURES)
        for arm in ARMS
    ]
    write_store(out, results, side=SIDE)
    for i in range(DISTINCT_FRAMES):
        frame = from_pillow(random_picture(rng, SIDE))
        (out / f"{i}.png").write_bytes(encode_png(frame))
    for result in results:
        for k in range(1, len(FACTORS) + 1):
            frame_path(out, result, k).hardlink_to(out / f"{rng.integers(DISTINCT_FRAMES)}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        fill_store(out)
        started, used = time.perf_counter(), time.process_time()
        write_report(out)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        megabytes = (out / "report.html").stat().st_size / 1e6
    print(
        f"report: {PICTURES} images x {len(ARMS)} arms x {len(FACTORS)} scales, {len(METRICS)} "
        f"metrics: {used:.1f} s on one core (limit: {MAX_SECONDS} s), {seconds:.1f} s elapsed; "
        f"report.html {megabytes:.1f} MB (limit: {MAX_MEGABYTES} MB)"
    )
    if used > MAX_SECONDS or megabytes > MAX_MEGABYTES:
        raise SystemExit("report: over the limit")


if __name__ == "__main__":
    main()
