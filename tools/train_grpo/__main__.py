"""Train the prompt extractor with GRPO, as the third part of the Chain-of-Zoom paper does.

python -m tools.train_grpo prepare IMAGES OUT   make pairs of views from a folder of photographs
python -m tools.train_grpo run CONFIG.yaml      train a LoRA for CoZ Load Prompt Extractor; if it was
                                                stopped, run it again to continue
accelerate launch -m tools.train_grpo run CONFIG.yaml    train on several GPUs or machines

It needs the .venv-train of `make train-env`.
"""

import argparse
import time
from pathlib import Path

from .command import add_traceback_option, print_skipped, run_and_exit
from .pairs import BUILT_IN, CROPS, PairOptions


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_grpo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("prepare", help="make a data set from photographs")
    data.add_argument(
        "images", type=Path, help="folder of photographs and of chains that CoZ Save Chain wrote"
    )
    data.add_argument(
        "out", type=Path, help="folder of the data set; an unfinished one is continued"
    )
    data.add_argument(
        "--backbone",
        default=BUILT_IN,
        help=f"what sharpens a step: {BUILT_IN}, the file of an upscale model, or {CROPS} (nothing: all views are cut from the photograph)",
    )
    data.add_argument(
        "--steps", type=int, default=4, help="4x steps of a chain (default: 4, up to 256x)"
    )
    data.add_argument("--targets", type=int, default=2, help="chains per photograph (default: 2)")
    data.add_argument("--size", type=int, default=512, help="side of a view in pixels")
    data.add_argument(
        "--frame",
        default="whole picture square",
        choices=["native pixels", "whole picture square", "whole picture"],
        help="where a chain starts, as in Chain Loop (default: whole picture square)",
    )
    data.add_argument("--seed", type=int, default=0)
    data.add_argument(
        "--preferences",
        type=Path,
        metavar="PATH",
        help="add the prompts that people marked in the viewer: a preferences.jsonl, or a folder that holds "
        "those of several users",
    )
    data.add_argument(
        "--held-out",
        type=float,
        default=0.05,
        help="share of the photographs that are not trained on",
    )
    data.add_argument(
        "--workers", type=int, default=0, help="number of processes (default: one per core)"
    )
    run = commands.add_parser("run", help="train, and score the held-out pairs before and after")
    run.add_argument("config", type=Path)
    add_traceback_option(commands.choices.values())
    args = parser.parse_args()
    if args.command == "prepare":
        for name, least, most in (("steps", 1, 16), ("targets", 1, 1000), ("size", 28, 4096)):
            if not least <= getattr(args, name) <= most:
                parser.error(f"--{name} must be {least} to {most}, got {getattr(args, name)}")
        if not 0 <= args.held_out < 1:
            parser.error(f"--held-out must be a share from 0 to below 1, got {args.held_out}")
    return args


def prepare(args: argparse.Namespace) -> None:
    from .data import prepare

    options = PairOptions(args.backbone, args.steps, args.targets, args.size, args.frame, args.seed)
    start = time.perf_counter()
    report = prepare(
        args.images,
        args.out,
        options,
        preferences=args.preferences,
        held_out=args.held_out,
        workers=args.workers,
    )
    seconds = time.perf_counter() - start
    print(f"{report.pairs} pairs to train on, {report.held_out} held out, in {args.out}")
    print(f"{(report.pairs + report.held_out) / seconds:.0f} pairs a second, {seconds:.0f} s")
    print_skipped(report.skipped)


def execute(args: argparse.Namespace) -> None:
    if args.command == "prepare":
        prepare(args)
    else:
        from .train import run

        run(args.config)


def main() -> None:
    run_and_exit(execute, parse_arguments(), "tools.train_grpo")


if __name__ == "__main__":
    main()
