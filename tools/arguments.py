"""Parse command lines and report an error in one line."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message}")


def make_whole_number_type(low: int, high: int) -> Callable[[str], int]:
    """Return the argparse type of a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number {low}..{high}, got {text!r}")
        return int(text)

    return parse
