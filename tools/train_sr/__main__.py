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
    form = {"formatter_class": argparse.RawDescriptionHelpFormatter, "description": __doc__}
    parser = argparse.ArgumentParser("python -m tools.train_sr", **form)
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("prepare", help="make a data set from photographs")
    add = data.add_argument
    add("images", type=Path, help="folder of photographs")
    add("out", type=Path, help="folder of the data set; an unfinished one is continued")
    add("--size", type=int, default=512, help="side of a crop in pixels")
    add("--crops", type=int, default=4, help="maximum crops per photograph")
    add("--seed", type=int, default=0)
    add("--held-out", type=float, default=0.02, help="share of the photographs not to train on")
    add = data.add_mutually_exclusive_group().add_argument
    add(
        "--tagger", type=Path, metavar="FILE", help="ram_swin_large_14m.pth: prompts are RAM's tags"
    )
    add("--vlm", metavar="MODEL", help="a vision-language model of transformers writes the prompts")
    add("--text-files", action="store_true", help="PHOTOGRAPH.txt has the prompt of PHOTOGRAPH.jpg")
    text = (
        "folder or Hugging Face name of SD3-medium in the layout of diffusers: also store the text "
        "embeddings (4.8 MB a prompt), so that training needs no text encoders"
    )
    data.add_argument("--text-encoders", metavar="SD3", help=text)
    distil, cross_scale = "train a LoRA and a VAE encoder", "train them further, through two zooms"
    for name, purpose in (("distil", distil), ("cross-scale", cross_scale)):
        add = commands.add_parser(name, help=purpose).add_argument
        add("config", type=Path)
        text = "print the memory that the config needs, and do not train"
        add("--estimate", action="store_true", help=text)
        text = "print the memory, and do not train if it exceeds this"
        add("--card-gb", type=float, metavar="GB", help=text)
    add_traceback_option(commands.choices.values())
    args = parser.parse_args()
    if args.command != "prepare":
        if args.card_gb is not None and not args.card_gb > 0:
            parser.error(
                f"--card-gb must be above 0, got {args.card_gb:g}: give the memory of the card, such as 24, "
                "or leave it out"
            )
        return args
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

    crops = CropOptions(args.size, args.crops, args.seed)
    prompts = args.tagger, args.vlm, args.text_files, args.text_encoders
    report = prepare(args.images, args.out, PrepareOptions(crops, args.held_out, *prompts))
    print(f"{report.crops} crops to train on, {report.held_out} held out, in {args.out}")
    print_skipped(report.skipped)


def train(args: argparse.Namespace) -> None:
    from tools.train_grpo.config import read_config

    from .config import CrossScaleConfig, DistilConfig

    kind = DistilConfig if args.command == "distil" else CrossScaleConfig
    config = read_config(args.config, kind)
    if args.estimate or args.card_gb is not None:
        from .estimate import print_estimate

        print_estimate(config, args.card_gb)
    if args.estimate:
        return
    from .loop import run

    if args.command == "distil":
        from .distil import load_distillation as load
    else:
        from .cross_scale import load_cross_scale as load
    run(config, load)


def execute(args: argparse.Namespace) -> None:
    (prepare if args.command == "prepare" else train)(args)


def main() -> None:
    run_and_exit(execute, parse_arguments(), "tools.train_sr")


if __name__ == "__main__":
    main()
