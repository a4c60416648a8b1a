"""Measure the gain of CoZ Self-Ensemble on the bundled photographs, downscaled 4x and upscaled again.

Limit: with coz_lite_x4, the faithful model, the PSNR rises by at least 0.1 dB on average.
"""

import statistics
import time
from pathlib import Path

from PIL import Image

from coz import self_ensemble
from coz.render.pillow import from_pillow, to_pillow
from tools.train_lite.data import crop_to_multiple, downscale
from tools.train_lite.scoring import BORDER, Upscale, load_model, measure_inner_psnr

ROOT = Path(__file__).parent.parent
FAITHFUL = "coz_lite_x4"
MIN_GAIN_DB = 0.1


def make_ensemble(upscale: Upscale) -> Upscale:
    return lambda lq: self_ensemble(upscale, lq)


def measure_upscale(upscale: Upscale, picture: Image.Image) -> tuple[float, float]:
    """Upscale the downscaled photograph; return (PSNR in dB, seconds)."""
    lq = from_pillow(downscale(picture))
    start = time.perf_counter()
    sr = upscale(lq)
    return measure_inner_psnr(to_pillow(sr), picture, BORDER), time.perf_counter() - start


def main() -> None:
    photographs = [
        crop_to_multiple(Image.open(path).convert("RGB"))
        for path in sorted((ROOT / "pictures").glob("*.*g"))
    ]
    mean_gains = {}
    for path in sorted((ROOT / "models").glob("*.safetensors")):
        alone = load_model(path)
        measure_upscale(alone, photographs[0])  # the first call is slower
        rows = [
            (*measure_upscale(alone, each), *measure_upscale(make_ensemble(alone), each))
            for each in photographs
        ]
        before, _, after, _ = (statistics.mean(column) for column in zip(*rows, strict=True))
        gains = [row[2] - row[0] for row in rows]
        time_ratio = statistics.median(row[3] / row[1] for row in rows)
        print(
            f"ensemble: {path.stem} {before:.2f} dB, ensemble {after:.2f} dB: "
            f"{after - before:+.2f} dB ({min(gains):+.2f} to {max(gains):+.2f}), "
            f"{time_ratio:.1f} times as long"
        )
        mean_gains[path.stem] = after - before
    if mean_gains[FAITHFUL] < MIN_GAIN_DB:
        raise SystemExit("ensemble: below the limit")


if __name__ == "__main__":
    main()
