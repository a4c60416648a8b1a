"""Measure ComfyUI's memory while a chain of 16 steps at 512 pixels runs. Linux only.

Limits: the chain raises the peak by at most four times the size of its frames plus 60 MB. 20 more runs add
at most 20 MB, with the cache and with --cache-none. With --cache-none
these are counted after 20 uncounted runs, in which the allocator grows to its final size.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tools.host.client import run_prompt
from tools.host.server import serve
from tools.host.workflow import Prompt, find_node

from .chain import make_prompt

STEPS = 16
ALL_FRAMES_BYTES = (STEPS + 1) * 512 * 512 * 3 * 4
MAX_GROWTH_BYTES = 4 * ALL_FRAMES_BYTES + 60 * 10**6
RUNS = 20
MAX_KEPT_BYTES = 20 * 10**6
"""Bytes that the allocator may keep; a leak of one frame per run would be 63 MB."""


def make_chain(steps: int) -> Prompt:
    workflow = make_prompt(0.5)
    workflow[find_node(workflow, "CoZChainLoop")]["inputs"]["steps"] = steps
    return workflow


def read_peak(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if "VmHWM" in line)


@contextmanager
def start_host(*arguments: str) -> Iterator[tuple[str, psutil.Process]]:
    with serve(arguments=arguments) as url:
        started = psutil.Process().children(recursive=True)
        yield url, next(p for p in started if "main.py" in " ".join(p.cmdline()[1:2]))


def main() -> None:
    if sys.platform != "linux":
        raise SystemExit("memory: reads /proc, so it runs on Linux only")
    with start_host() as (url, process):
        run_prompt(url, make_chain(1))
        Path(f"/proc/{process.pid}/clear_refs").write_text("5", "utf-8")  # resets the peak
        before = process.memory_info().rss
        run_prompt(url, make_chain(STEPS))
        grown = read_peak(process) - before
        once = process.memory_info().rss
        for _ in range(RUNS):
            run_prompt(url, make_chain(STEPS))
        added_cached = process.memory_info().rss - once
    with start_host("--cache-none") as (url, process):
        run_prompt(url, make_chain(STEPS))
        once = read_peak(process)
        for _ in range(RUNS):
            run_prompt(url, make_chain(STEPS))
        filled = read_peak(process)
        for _ in range(RUNS):
            run_prompt(url, make_chain(STEPS))
        added_uncached = read_peak(process) - filled
    print(
        f"memory: {STEPS} steps grow the peak by {grown / 1e6:.0f} MB, {grown / ALL_FRAMES_BYTES:.1f} times "
        f"the frames (limit: {MAX_GROWTH_BYTES / 1e6:.0f} MB). {RUNS} more runs add "
        f"{added_cached / 1e6:.0f} MB (limit: {MAX_KEPT_BYTES / 1e6:.0f}). Without a cache {RUNS} runs add "
        f"{(filled - once) / 1e6:.0f} MB, and {RUNS} more add {added_uncached / 1e6:.0f} MB "
        f"(limit: {MAX_KEPT_BYTES / 1e6:.0f})"
    )
    if grown > MAX_GROWTH_BYTES or max(added_cached, added_uncached) > MAX_KEPT_BYTES:
        raise SystemExit("memory: over the limit")


if __name__ == "__main__":
    main()
