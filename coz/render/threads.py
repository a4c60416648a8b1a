"""Compute results in several threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Value = TypeVar("Value")
Result = TypeVar("Result")


def map_in_threads(
    function: Callable[[Value], Result], values: Iterable[Value], threads: int
) -> Iterator[Result]:
    """Yield ``function`` of each value in their order, while the next ones are computed.

    Args:
        function: Runs in other threads, in the caller's inference mode.
        values: They are read as threads become free.
        threads: Number of threads. At most this many results are computed ahead of the one that is yielded.

    Raises:
        Exception: The first one that ``function`` raises. Then, and if the caller closes the iterator,
            no further call starts, and those that run are waited for.
    """
    is_inference = torch.is_inference_mode_enabled()

    def call(value: Value) -> Result:
        with torch.inference_mode(is_inference):
            return function(value)

    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for value in values:
            pending.append(pool.submit(call, value))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
