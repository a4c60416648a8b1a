"""Numbers for each step that a user types into one text."""

import re

from .step_prompts import trim

SEPARATORS = re.compile(r"[,\uff0c\n]")
"""Comma, full-width comma and line feed."""


def read_step_numbers(text: str, name: str, low: float, high: float) -> list[float]:
    """Read numbers separated by commas or on a line each, such as "0.5, 0.4, 0.3".

    Args:
        text: Blank for no numbers.
        name: The name of the input, for the error.
        low: Smallest allowed number.
        high: Largest allowed number.

    Raises:
        ValueError: If a part is not a number from ``low`` to ``high``.
    """
    parts = SEPARATORS.split(trim(text)) if trim(text) else []
    numbers: list[float] = []
    for place, part in enumerate(map(trim, parts), 1):
        try:
            number = float(part)
        except ValueError:
            number = None
        if number is None or not low <= number <= high:  # NaN fails the comparison
            raise ValueError(
                f'{name} must be numbers from {low:g} to {high:g}, such as "0.5, 0.4, 0.3" or one on '
                f'each line, but value {place} is "{part}"'
            )
        numbers.append(number)
    return numbers
