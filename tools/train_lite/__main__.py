"""Train and measure the super-resolution models that come with the pack.

python -m tools.train_lite faithful      train the faithful model, a regression on photographs and on SPAN's results
python -m tools.train_lite texture       train the texture model to imitate Real-ESRGAN in three steps of a chain
python -m tools.train_lite cross-scale   fine-tune the texture model through two zooms
python -m tools.train_lite --evaluate    print every score beside its limit; the exit code is 1 if one fails
python -m tools.train_lite --sheet FILE  draw the chains to the targets in scoring.py, with both models

The teachers and most photographs are downloaded from package indexes. It needs the .venv of `make host`.
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
    faithful_model, texture_model = scoring.load_model(FAITHFUL), scoring.load_model(TEXTURE)
    passed = [
        print_scores(FAITHFUL.name, scoring.score_file(FAITHFUL, faithful_model)),
        print_scores("  held-out pictures", scoring.score_fidelity(faithful_model)),
        print_scores(TEXTURE.name, scoring.score_file(TEXTURE, texture_model)),
        print_scores("  chains of four steps", scoring.score_chains(texture_model)),
        print_scores(
            "  compared with Real-ESRGAN, and on JPEG files",
            scoring.score_jpeg_and_imitation(
                texture_model, scoring.clamp_results(load_real_esrgan())
            ),
        ),
    ]
    for path, upscale in ((FAITHFUL, faithful_model), (TEXTURE, texture_model)):
        print(
            f"{path.name}, zoomed twice: error in levels of 255 at 4x, and at 16x downscaled to 4x"
        )
        for name, first, second in cross_scale.measure_two_zoom_errors(upscale):
            print(f"  {name:44} {first:9.2f} {second:9.2f}")
    return all(passed)


def parse_arguments() -> argparse.Namespace:
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
        help="weights to start from; default: none for faithful, the faithful model for texture, "
        "the texture model for cross-scale",
    )
    parser.add_argument(
        "--steps",
        type=int,
        help=f"number of training steps; default: {faithful.STEPS} for faithful, {texture.STEPS} for "
        f"texture, {cross_scale.STEPS} for cross-scale",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="file from which an interrupted training continues; removed at the end",
    )
    parser.add_argument("--out", type=Path, help="default: the pack's own file in models/")
    args = parser.parse_args()
    if not (args.train or args.evaluate or args.sheet):
        parser.error("nothing to do: name a model to train, --evaluate or --sheet FILE")
    return args


def main() -> int:
    args = parse_arguments()
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
        scoring.draw_contact_sheet(models).save(args.sheet, quality=80)
    return 0 if not args.evaluate or evaluate() else 1


if __name__ == "__main__":
    sys.exit(main())
