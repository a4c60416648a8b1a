"""Train and measure the super-resolution models that come with the pack.

python -m tools.train_lite faithful      regression: learns from photographs and from SPAN
python -m tools.train_lite texture       imitates Real-ESRGAN for three steps of a chain
python -m tools.train_lite cross-scale   trains the texture model on, through two zooms
python -m tools.train_lite --evaluate    every score beside its limit; exit code 1 if one fails
python -m tools.train_lite --sheet FILE  chains to the targets in scoring.py, with both models

The teachers and most photographs are fetched from package indexes. Needs the packages of the
`train` extra: the .venv of `make host` has them.
"""

import argparse
import sys
from math import inf
from pathlib import Path

import torch

from tools.host.environment import ROOT

from . import cross_scale, faithful, scoring, texture
from .teachers import load_real_esrgan

MODELS = ROOT / "models"
FAITHFUL = MODELS / "coz_lite_x4.safetensors"
TEXTURE = MODELS / "coz_lite_x4_texture.safetensors"


def print_scores(title: str, scores: list[scoring.Score]) -> bool:
    print(title)
    for score in scores:
        if score.high == inf:
            limit = f">= {score.low:g}"
        elif score.low == -inf:
            limit = f"<= {score.high:g}"
        else:
            limit = f"{score.low:g} to {score.high:g}"
        verdict = "" if score.passed else "   FAILS"
        print(f"  {score.name:44} {score.value:9.3f}   {limit}{verdict}")
    return all(score.passed for score in scores)


def evaluate() -> bool:
    regression, inventor = scoring.load(FAITHFUL), scoring.load(TEXTURE)
    passed = [
        print_scores(FAITHFUL.name, scoring.file_scores(FAITHFUL, regression)),
        print_scores("  held-out pictures", scoring.fidelity_scores(regression)),
        print_scores(TEXTURE.name, scoring.file_scores(TEXTURE, inventor)),
        print_scores("  chains of four steps", scoring.chain_scores(inventor)),
        print_scores(
            "  beside Real-ESRGAN and on JPEG files",
            scoring.teacher_scores(inventor, scoring.clamped(load_real_esrgan())),
        ),
    ]
    for path, upscale in ((FAITHFUL, regression), (TEXTURE, inventor)):
        print(f"{path.name}, zoomed twice: error in grey levels at 4x, and at 16x reduced to it")
        for name, first, second in cross_scale.two_zoom_errors(upscale):
            print(f"  {name:44} {first:9.2f} {second:9.2f}")
    return all(passed)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_lite",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("train", nargs="?", choices=["faithful", "texture", "cross-scale"])
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--sheet", type=Path, metavar="FILE")
    parser.add_argument(
        "--start",
        type=Path,
        help="weights to go on from; default: faithful begins anew, texture takes the faithful file, "
        "cross-scale the texture file",
    )
    parser.add_argument(
        "--steps", type=int, help="number of training steps; default: as for the models in models/"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--checkpoint", type=Path, help="file to go on from after a break; removed at the end"
    )
    parser.add_argument("--out", type=Path, help="default: the pack's own file in models/")
    args = parser.parse_args()
    if not (args.train or args.evaluate or args.sheet):
        parser.error("nothing to do: name a model to train, --evaluate or --sheet FILE")
    return args


def main() -> int:
    args = arguments()
    torch.set_num_threads(args.threads)
    if args.train:
        out = args.out or (FAITHFUL if args.train == "faithful" else TEXTURE)
        checkpoint = args.checkpoint or out.with_suffix(".checkpoint")
        if args.train == "faithful":
            faithful.train(args.start, out, checkpoint, args.steps or faithful.STEPS, args.seed)
        elif args.train == "texture":
            steps = args.steps or texture.STEPS
            texture.train(args.start or FAITHFUL, out, checkpoint, steps, args.seed)
        else:
            steps = args.steps or cross_scale.STEPS
            cross_scale.train(args.start or TEXTURE, out, checkpoint, steps, args.seed)
    if args.sheet:
        models = {"faithful": FAITHFUL, "texture": TEXTURE}
        scoring.contact_sheet(models).save(args.sheet, quality=80)
    return 0 if not args.evaluate or evaluate() else 1


if __name__ == "__main__":
    sys.exit(main())
