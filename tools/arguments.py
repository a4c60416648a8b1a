"""Command lines that say what is wrong in one line."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message}")


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number between these two."""

    def number(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"a whole number {least}..{most}, not {text!r}")
        return int(text)

    return number
