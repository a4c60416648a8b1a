"""The card of a trained prompt LoRA: data, rewards, curves, seeds; and the adapter that it is about."""

import json
import shutil
from pathlib import Path
from statistics import mean, median_low, stdev
from typing import Any

from coz.chain import __version__

from .config import Config

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
ENOUGH_SEEDS = 3
"""For a result to report: runs of few steps differ in sign from seed to seed."""

WIDTH, HEIGHT, MARGIN = 640, 160, 44
COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#9a6700")
MOST_POINTS = 400


def write_card(config: Config, pairs: int) -> Path:
    """Put the adapter of the middle seed, its card and its curves into ``out``/adapter.

    The middle one by the held-out reward, not the best: that would be chosen by luck.
    """
    folders = {seed: config.out / f"seed-{seed}" for seed in config.seeds}
    after = {seed: _read(folder / "after.json") for seed, folder in folders.items()}
    before = {seed: _read(folder / "before.json") for seed, folder in folders.items()}
    history = {seed: _read(folder / "history.json") for seed, folder in folders.items()}
    rewards = {seed: scores.get("reward") or 0.0 for seed, scores in after.items()}
    middle = median_low(rewards.values())
    chosen = next(seed for seed, reward in rewards.items() if reward == middle)
    out = config.out / "adapter"
    out.mkdir(exist_ok=True)
    for name in ADAPTER_FILES:
        shutil.copyfile(folders[chosen] / "adapter" / name, out / name)
    names = [f"rewards/{name}/mean" for name, weight in config.rewards.items() if weight]
    (out / "curves.svg").write_text(curves(history, ["reward", *names]), "utf-8")
    scores = {"seeds": config.seeds, "chosen": chosen, "before": before, "after": after}
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
    (out / "README.md").write_text(card(config, pairs, chosen, before, after), "utf-8")
    return out


def card(config: Config, pairs: int, chosen: int, before: dict, after: dict) -> str:
    """The text, with nothing in it that was not measured."""
    data = _read(config.data / "prepare.json")
    weights = {name: weight for name, weight in config.rewards.items() if weight}
    critic = f"{config.critic.model} ({'a server' if config.critic.url else 'local'})"
    steps = after[chosen]["steps"]
    lines = [
        "---",
        f"base_model: {config.model}",
        "library_name: peft",
        "tags: [chain-of-zoom, grpo, lora, super-resolution]",
        "---",
        "",
        "# Prompt LoRA for Chain-of-Zoom",
        "",
        f"Trained with GRPO on {config.model} by Chain-of-Zoom for ComfyUI {__version__}, after "
        "arXiv 2505.18600. Put `adapter_model.safetensors` and `adapter_config.json` side by side into a "
        "folder of `models/loras` and choose it in CoZ Load Prompt Extractor.",
        "",
        f"This file is of seed {chosen}, the middle one of {len(config.seeds)} by the held-out reward.",
    ]
    if len(config.seeds) < ENOUGH_SEEDS:
        lines += [
            "",
            f"**{len(config.seeds)} seeds only**: no result to report. It takes {ENOUGH_SEEDS}.",
        ]
    lines += ["", "## Held-out views, before and after", "", *_table(config.seeds, before, after)]
    lines += [
        "",
        "## Training",
        "",
        f"- Data: {pairs} pairs of views to train on, {after[chosen].get('pairs', 0)} held out; "
        + ", ".join(f"{name} {value}" for name, value in data.items()),
        "- Rewards: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()),
        *([f"- Critic: {critic}"] if "critic" in weights else []),
        f"- LoRA: r {config.lora.r}, alpha {config.lora.alpha}, dropout {config.lora.dropout}, "
        "language model only",
        f"- {steps} steps a seed, seeds {', '.join(map(str, config.seeds))}",
        *[f"- Seed {seed}: {_told(scores['cost'])}" for seed, scores in after.items()],
    ]
    settings = ", ".join(f"{name} {value}" for name, value in sorted(config.training.items()))
    lines += [f"- Settings besides the defaults: {settings or 'none'}", "", "![Curves](curves.svg)"]
    return "\n".join(lines) + "\n"


def _told(cost: dict[str, Any]) -> str:
    parts = [
        f"{cost['seconds']} s on {cost['processes']} x {cost['device']}",
        f"{cost['tokens_per_second']} tokens a second",
    ]
    if "peak_memory_gb" in cost:
        parts.append(f"at most {cost['peak_memory_gb']} GB a GPU")
    return ", ".join(parts)


def _table(seeds: list[int], before: dict, after: dict) -> list[str]:
    names = [
        name
        for name, value in after[seeds[0]].items()
        if isinstance(value, float) and before[seeds[0]].get(name) is not None
    ]
    if not names:
        return ["No pairs were held out."]
    lines = [
        f"| | {' | '.join(f'seed {seed}' for seed in seeds)} | mean change |",
        f"|---|{'---|' * (len(seeds) + 1)}",
    ]
    for name in names:
        both = [(before[seed].get(name), after[seed].get(name)) for seed in seeds]
        cells = [f"{b:.3f} -> {a:.3f}" if None not in (b, a) else "-" for b, a in both]
        changes = [a - b for b, a in both if None not in (b, a)]
        spread = f" ± {stdev(changes):.3f}" if len(changes) > 1 else ""
        lines.append(f"| {name} | {' | '.join(cells)} | {mean(changes):+.3f}{spread} |")
    return lines


def curves(history: dict[int, list[dict]], names: list[str]) -> str:
    """A drawing of each quantity over the steps, a line a seed."""
    panels = []
    for row, name in enumerate(names):
        lines = {
            seed: [(e["step"], e[name]) for e in entries if e.get(name) is not None]
            for seed, entries in history.items()
        }
        panels.append(_panel(name, lines, row * HEIGHT))
    height = HEIGHT * len(names)
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>{"".join(panels)}</svg>\n'
    )


def _panel(name: str, lines: dict[int, list[tuple[float, float]]], top: int) -> str:
    points = [point for line in lines.values() for point in line]
    title = f'<text x="{MARGIN}" y="{top + 18}" font-weight="bold">{name}</text>'
    if not points:
        return title
    last = max(step for step, _ in points) or 1
    low, high = min(v for _, v in points), max(v for _, v in points)
    if low == high:
        low, high = low - 0.5, high + 0.5
    span = high - low
    across, down = WIDTH - 2 * MARGIN, HEIGHT - 56
    bottom = top + 26 + down

    def drawn(seed: int, line: list[tuple[float, float]]) -> str:
        every = max(1, len(line) // MOST_POINTS)
        spots = " ".join(
            f"{MARGIN + across * step / last:.1f},{bottom - down * (value - low) / span:.1f}"
            for step, value in line[::every]
        )
        colour = COLOURS[list(lines).index(seed) % len(COLOURS)]
        return f'<polyline fill="none" stroke="{colour}" points="{spots}"/>'

    frame = f'<path fill="none" stroke="#999" d="M{MARGIN} {top + 26}V{bottom}H{MARGIN + across}"/>'
    texts = (
        f'<text x="{MARGIN - 4}" y="{top + 34}" text-anchor="end">{high:.2f}</text>'
        f'<text x="{MARGIN - 4}" y="{bottom}" text-anchor="end">{low:.2f}</text>'
        f'<text x="{MARGIN + across}" y="{bottom + 14}" text-anchor="end">step {last:g}</text>'
        f'<text x="{MARGIN}" y="{bottom + 14}">0</text>'
    )
    legend = "".join(
        f'<tspan dx="10" fill="{COLOURS[i % len(COLOURS)]}">seed {seed}</tspan>'
        for i, seed in enumerate(lines)
    )
    legend = f'<text x="{MARGIN + across}" y="{top + 18}" text-anchor="end">{legend}</text>'
    return title + legend + frame + texts + "".join(drawn(*item) for item in lines.items())


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
