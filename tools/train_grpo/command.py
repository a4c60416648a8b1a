"""Run the commands of train_grpo and train_sr: report an error in one line, and list what was skipped."""

import argparse
import gc
import sys
from collections.abc import Callable, Iterable


def add_traceback_option(commands: Iterable[argparse.ArgumentParser]) -> None:
    for command in commands:
        command.add_argument(
            "--traceback",
            action="store_true",
            help="show the traceback of an error, for a bug report",
        )


def print_skipped(skipped: dict[str, str]) -> None:
    """Print the names of what was skipped, each with its reason."""
    if skipped:
        print(f"Skipped: {len(skipped)}")
        for name, reason in sorted(skipped.items()):
            print(f"  {name}: {reason}")


Run = Callable[[argparse.Namespace], None]


def run_and_exit(run: Run, args: argparse.Namespace, package: str) -> None:
    """Run a command of a package, and exit with its error message if it failed."""
    reason = run_command(run, args, package)
    gc.collect()  # closes progress bars, so that they do not print after the reason
    sys.exit(reason)


def run_command(run: Run, args: argparse.Namespace, package: str) -> str | None:
    """Run a command of a package; return an error message for the user, or None if it succeeded."""
    try:
        run(args)
    except (ValueError, OSError) as error:
        if args.traceback:
            raise
        return f"error: {error}"
    except ModuleNotFoundError as error:
        return (
            f"error: this Python has no {error.name}: make train-env, then .venv-train/bin/python -m "
            f"{package}"
        )
    except KeyboardInterrupt:
        return "stopped: run it again to continue"
    return None
