"""Evaluate chains by the paper's protocol in a real ComfyUI, and report fidelity and naturalness.

    .venv/bin/python -m tools.evaluate IMAGES --arms nearest,bicubic,onestep,chain-null --out DIR

IMAGES is a folder. Each image is resized and cropped to 512 x 512, and each arm (a method to compare)
enlarges its middle 4, 16, 64 and 256 times. The command writes report.html, table.md, scores.csv and all
frames to DIR. If it is stopped, run it again: it continues and keeps finished results. A weight
file that you replaced under the same name goes unnoticed: use a new DIR then.
"""

import argparse
import errno
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

try:
    from tqdm import tqdm

    from tools.image_file import ImageError

    from .arms import DEFAULT_ARMS, KNOWN_ARMS, ArmError, read_arms
    from .inputs import MAX_STEPS, Protocol, find_images
    from .job import Job, Result
    from .metrics import ALL_METRICS, METRICS
    from .plan import Plan
    from .run import run_here
    from .store import write_record, write_result
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is missing: run make host, then .venv/bin/python -m tools.evaluate"
    )

from tools.arguments import OneLineParser, make_whole_number_type
from tools.host import HostError
from tools.host.workflow import FIRST_TEMPLATE

DISK_FULL_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
MAX_LISTED_FILES = 3  # of those that are no images


class Failures:
    """Print each failure at once, and keep it for the list at the end."""

    def __init__(self) -> None:
        self.messages: dict[str, str] = {}

    def add(self, what: str, why: str) -> None:
        self.messages[to_line(what)] = to_line(why)
        tqdm.write(f"failed: {to_line(what)}: {to_line(why)}", file=sys.stderr)


def to_line(text: str) -> str:
    """Put a text into one line that can be printed, even if a file name in it is not valid Unicode."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def evaluate(options: argparse.Namespace, failures: Failures) -> None:
    """Run every arm on every image for which the store has no result yet."""
    arms = read_arms(options.arms, options.workflow)
    protocol = Protocol(choose_steps(options), options.ground_truth, options.scale_down)
    names, others = find_images(options.images, options.out)
    if others:
        more = ", ..." if len(others) > MAX_LISTED_FILES else ""
        print(
            f"left out {len(others)} files that are no images: {', '.join(others[:MAX_LISTED_FILES])}{more}"
        )
    options.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(options.out, options.images, protocol, options.metrics, options.seed)
    for name in tqdm(names, "reading the images", leave=False):
        try:
            plan.add(name)
        except ImageError as error:
            failures.add(name, str(error))
    if not plan.images:
        raise ImageError(f"none of the {len(names)} images can be used")
    more_settings = {
        "command": to_line(shlex.join(["python", "-m", "tools.evaluate", *sys.argv[1:]])),
        "date": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "workflow": to_line((options.workflow or FIRST_TEMPLATE).name),
        "left out": dict(failures.messages),
    }
    waiting = plan.write_settings_and_list_waiting(arms, more_settings)
    total = len(arms) * len(plan.images)
    with tqdm(total=total, initial=total - len(waiting), unit="result") as bar:

        def jobs() -> Iterator[Job]:
            for arm, image in waiting:
                bar.set_description(f"{image}, {arm.name}")
                job = plan.make_job(arm, image)
                if result := plan.measure_again(job):
                    write_record(options.out, result)
                    bar.update()
                else:
                    yield job

        with closing(choose_runner(options)(jobs())) as results:
            for result in results:
                write_result(options.out, result)
                bar.update()
                if result.error is not None:
                    failures.add(f"{result.image}, {result.arm}", result.error)


def choose_runner(options: argparse.Namespace) -> Callable[[Iterator[Job]], Iterator[Result]]:
    if not options.ray:
        return run_here
    from .ray import run_on_ray

    return lambda jobs: run_on_ray(jobs, options.ray, options.workers)


def choose_steps(options: argparse.Namespace) -> int:
    """Return --steps, or what the smallest allowed ground truth covers; MAX_STEPS without one."""
    if options.steps:
        return options.steps
    if options.scale_down or options.ground_truth:
        return 2 if options.scale_down == 16 else 1
    return MAX_STEPS


def write_reports(options: argparse.Namespace) -> None:
    """Write the report, and the blind page and people's judgement where asked for."""
    from .report import write_report

    if options.answers:
        from .answers import read_answers

        for note in read_answers(options.out, options.answers).notes:
            print(note)
    if options.blind:
        from .blind import write_blind

        write_blind(options.out, options.blind, options.seed)
        print(f"Send this page to the judges: {options.out / 'blind.html'}")
    write_report(options.out)
    print(f"Done: see {options.out / 'report.html'}")


def parse_folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text}")
    return Path(text)


def parse_metrics(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        known = ", ".join(METRICS)
        raise argparse.ArgumentTypeError(
            f"there is no metric {', '.join(unknown)!r}. Known: {known}"
        )
    return names


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = OneLineParser(
        "python -m tools.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "images",
        type=Path,
        nargs="?",
        help="a folder of images, or one image; leave it out to only report",
    )
    add(
        "--arms",
        default=",".join(DEFAULT_ARMS),
        help=f"names separated by commas: {', '.join(KNOWN_ARMS)}, or NAME=FILE.json for a workflow of "
        "your own, which keeps its prompts. Default: %(default)s",
    )
    add(
        "--workflow",
        type=Path,
        metavar="FILE",
        help="a workflow with a Chain Loop, whose backbone and vision-language model are evaluated. "
        f"Default: {FIRST_TEMPLATE.name}",
    )
    add(
        "--steps",
        type=make_whole_number_type(1, MAX_STEPS),
        help="number of 4x steps. Default: 4; 1 with --ground-truth or --scale-down 4; 2 with "
        "--scale-down 16",
    )
    add(
        "--seed",
        type=make_whole_number_type(0, 2**64 - 1),
        default=0,
        help="seed of every chain. Default: 0",
    )
    truth = parser.add_mutually_exclusive_group()
    truth.add_argument(
        "--ground-truth",
        type=parse_folder,
        metavar="DIR",
        help="the ground truth: images of the same names, 4, 5, 6, ... times as wide and as high",
    )
    truth.add_argument(
        "--scale-down",
        type=int,
        choices=(4, 16),
        default=0,
        help="downscale each image by this factor first, and use the image itself as ground truth",
    )
    add(
        "--metrics",
        type=parse_metrics,
        default=ALL_METRICS,
        metavar="NAMES",
        help=f"names separated by commas: {', '.join(METRICS)}. Default: all",
    )
    add("--ray", metavar="ADDRESS", help="run on a Ray cluster: auto, local or HOST:PORT")
    add(
        "--workers",
        type=make_whole_number_type(1, 10_000),
        help="number of workers on the Ray cluster",
    )
    add("--report-only", action="store_true", help="run nothing, only write the report again")
    add(
        "--blind",
        type=make_whole_number_type(1, 100_000),
        metavar="N",
        help="also write a page with N pairs for people to judge",
    )
    add(
        "--answers",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="the answers.json files that the judges sent back",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    options = parser.parse_args(arguments)
    if options.images is None and not (options.report_only or options.blind or options.answers):
        parser.error("give the folder with the images, or --report-only")
    if options.workers and not options.ray:
        parser.error("--workers needs --ray")
    return options


def main() -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # a file name may be no valid Unicode
    options, failures = parse_arguments(), Failures()
    try:
        if options.images is not None and not options.report_only:
            evaluate(options, failures)
        write_reports(options)
    except (ArmError, ImageError, HostError, ValueError) as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno in DISK_FULL_ERRORS:
            sys.exit(
                f"error: the disk of {options.out} is full. Free some space and run it again: finished results are kept"
            )
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped: run the same command again to continue")
    if failures.messages:
        lines = [f"{what}: {why}" for what, why in failures.messages.items()]
        sys.exit("\n".join([f"{len(lines)} failed:", *lines]))


if __name__ == "__main__":
    main()
