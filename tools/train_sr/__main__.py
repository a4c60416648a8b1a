"""Train super-resolution LoRAs for SD3, the first part of the Chain-of-Zoom paper.

python -m tools.train_sr prepare IMAGES OUT        cut crops from a folder of photographs, and describe them
python -m tools.train_sr distil CONFIG.yaml        train a LoRA and a VAE encoder for CoZ Load SR LoRA
python -m tools.train_sr cross-scale CONFIG.yaml   train them further, through two zooms
accelerate launch -m tools.train_sr distil CONFIG.yaml    train on several GPUs

If a command was stopped, run it again to continue. It needs the .venv-train of `make train-env`.
"""

import argparse
from pathlib import Path

from tools.train_grpo.command import add_traceback_option, print_skipped, run_and_exit


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_sr",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("prepare", help="make a data set from photographs")
    data.add_argument("images", type=Path, help="folder of photographs")
    data.add_argument(
        "out", type=Path, help="folder of the data set; an unfinished one is continued"
    )
    data.add_argument("--size", type=int, default=512, help="side of a crop in pixels")
    data.add_argument("--crops", type=int, default=4, help="maximum crops per photograph")
    data.add_argument("--seed", type=int, default=0)
    data.add_argument(
        "--held-out",
        type=float,
        default=0.02,
        help="share of the photographs that are not trained on",
    )
    prompts = data.add_mutually_exclusive_group()
    prompts.add_argument(
        "--tagger",
        type=Path,
        metavar="FILE",
        help="take the prompts from the tags of RAM, ram_swin_large_14m.pth",
    )
    prompts.add_argument(
        "--vlm",
        metavar="MODEL",
        help="let a vision-language model of transformers write the prompts",
    )
    prompts.add_argument(
        "--text-files",
        action="store_true",
        help="take the prompt of PHOTOGRAPH.jpg from PHOTOGRAPH.txt",
    )
    data.add_argument(
        "--text-encoders",
        metavar="SD3",
        help="also store the text embeddings (4.8 MB a prompt), so that training needs no text encoders",
    )
    for name, purpose in (
        ("distil", "train a LoRA and a VAE encoder"),
        ("cross-scale", "train them further, through two zooms"),
    ):
        training = commands.add_parser(name, help=purpose)
        training.add_argument("config", type=Path)
        training.add_argument(
            "--estimate",
            action="store_true",
            help="print the memory that the config needs, and do not train",
        )
        training.add_argument(
            "--card-gb",
            type=float,
            metavar="GB",
            help="print the memory, and do not train if it exceeds this",
        )
    add_traceback_option(commands.choices.values())
    args = parser.parse_args()
    if args.command == "prepare":
        for name, least in (("size", 64), ("crops", 1)):
            if getattr(args, name) < least:
                parser.error(f"--{name} must be at least {least}, got {getattr(args, name)}")
        if args.size % 16:
            parser.error(f"--size must be a multiple of 16, got {args.size}")
        if not 0 <= args.held_out < 1:
            parser.error(f"--held-out must be a share from 0 to below 1, got {args.held_out}")
    return args


def prepare(args: argparse.Namespace) -> None:
    from .crops import CropOptions
    from .prepare import PrepareOptions, prepare

    options = PrepareOptions(
        CropOptions(args.size, args.crops, args.seed),
        args.held_out,
        args.tagger,
        args.vlm,
        args.text_files,
        args.text_encoders,
    )
    report = prepare(args.images, args.out, options)
    print(f"{report.crops} crops to train on, {report.held_out} held out, in {args.out}")
    print_skipped(report.skipped)


def train(args: argparse.Namespace) -> None:
    from .config import CrossScaleConfig, DistilConfig, read_config

    if args.estimate or args.card_gb:
        from .estimate import print_estimate

        kind = DistilConfig if args.command == "distil" else CrossScaleConfig
        print_estimate(read_config(args.config, kind), args.card_gb)
    if args.estimate:
        return
    if args.command == "distil":
        from .distil import run
    else:
        from .cross_scale import run
    run(args.config)


def execute(args: argparse.Namespace) -> None:
    if args.command == "prepare":
        prepare(args)
    else:
        train(args)


def main() -> None:
    run_and_exit(execute, parse_arguments(), "tools.train_sr")


if __name__ == "__main__":
    main()
