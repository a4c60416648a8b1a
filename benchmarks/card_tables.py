"""Print the tables of benchmarks.card, in Markdown."""

import sys

from tests.support.simulated_card import Work

from .card_parts import PARTS, SR, TEXT, Part, add_parts

RATES = {"16 bits": 165.2e12, "fp32": 82.6e12, "memory": 1008e9, "bus": 25e9}
"""Rates of a GeForce RTX 4090 by its data sheet: dense FLOP/s of its tensor cores in 16 bits with sums in
fp32, FLOP/s in fp32 without tensor cores, and bytes/s of its memory. "bus" is the bytes/s that a copy from
pinned memory usually reaches over PCIe 4.0 x16."""


def estimate_seconds(work: Work, flops_per_second: float) -> float:
    """Estimate the minimum time on a GeForce RTX 4090.

    It is the longer of the times for arithmetic and reads, plus the time for transfers.
    """
    moved = sum(transfer.bytes for transfer in work.transfers)
    return (
        max(work.flops / flops_per_second, work.bytes_read / RATES["memory"]) + moved / RATES["bus"]
    )


def print_table(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print a table; all columns but the first are aligned to the right."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|---{'|---:' * (len(head) - 1)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def print_step(parts: dict[str, Part], floors: dict[str, int], card_gib: int) -> None:
    """Print each part of a step beside its floor.

    The floor of the reads is the part's weights, read once. In the part ``tokens`` they are read once for each
    token after the first. The floor of the time is the longer of the times for these reads and for the
    arithmetic.
    """
    rows, sums = [], [0.0, 0.0]
    for name in [*(name for name in PARTS if name in parts), "all"]:
        part = add_parts(parts.values()) if name == "all" else parts[name]
        work, floor = part.work, sum(floors.values()) if name == "all" else floors.get(name, 0)
        times = (
            estimate_seconds(work, RATES["16 bits"]),
            max(work.flops / RATES["16 bits"], floor / RATES["memory"]),
        )
        if name == "all":
            times = sums
        else:
            sums = [a + b for a, b in zip(sums, times, strict=True)]
        cells = [f"{work.flops / 1e12:.3f}", f"{work.bytes_read / 1e9:.1f}", f"{floor / 1e9:.1f}"]
        cells += [f"{work.kernels:,}", f"{work.waits}", f"{part.count_gb(to_card=True):.2f}"]
        rows.append([name, *cells, *(f"{1000 * time:.0f}" for time in times)])
    head = [
        "part",
        "TFLOP",
        "read, GB",
        "floor, GB",
        "kernels",
        "waits",
        "to card, GB",
        "ms",
        "floor, ms",
    ]
    title = f"The first AR-2 step on a card of {card_gib} GB (simulated; ms: estimated):"
    print_table(title, head, rows)


def print_authors_step(ours: dict[str, Part], theirs: dict[str, Part]) -> None:
    names, rows, sums = (TEXT, *SR), [], [0.0, 0.0]
    for name in (*names, "all"):
        both = [
            add_parts(p[x] for x in names) if name == "all" else p[name] for p in (ours, theirs)
        ]
        a, b = (part.work for part in both)
        their_dtype = "16 bits" if name == TEXT else "fp32"  # their text encoders are in fp16
        times = [estimate_seconds(a, RATES["16 bits"]), estimate_seconds(b, RATES[their_dtype])]
        if name == "all":
            times = sums
        else:
            sums = [x + y for x, y in zip(sums, times, strict=True)]
        pairs = [
            (a.flops / 1e12, b.flops / 1e12, ".3f"),
            (a.bytes_read / 1e9, b.bytes_read / 1e9, ".1f"),
            (a.kernels, b.kernels, ","),
            (1000 * times[0], 1000 * times[1], ".0f"),
        ]
        rows.append([name, *(f"{x:{f}} / {y:{f}} = {x / max(y, 1e-9):.2f}" for x, y, f in pairs)])
    title = (
        "A step, ours / the authors', without the VLM, which is the same in both "
        "(simulated; ms: estimated):"
    )
    print_table(title, ["part", "TFLOP", "read, GB", "kernels", "ms"], rows)
    peak = max(part.peak for part in theirs.values()) / 2**30
    print(
        f"\nPeak of the authors' step with their VLM on the same card: {peak:.1f} GiB (simulated)."
    )


def print_t5_saving(long: dict[str, Part], short: dict[str, Part]) -> None:
    names, rows = (TEXT, *SR), []
    for name in (*names, "all"):
        a, b = (
            sum(p[x].work.flops for x in (names if name == "all" else [name])) / 1e12
            for p in (long, short)
        )
        rows.append([name, f"{a:.3f}", f"{b:.3f}", f"{1 - b / a:.0%}"])
    title = "What a T5 context of 77 tokens instead of 512 saves in a step with a typed text (simulated):"
    print_table(title, ["part", "TFLOP, 512", "TFLOP, 77", "saved"], rows)
