"""Write the card of a trained prompt LoRA: its data, rewards, curves and seeds."""

import json
import shutil
from pathlib import Path
from statistics import mean, median_low, stdev
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from coz.chain.zoom_chain import __version__

from .config import Config

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
MIN_SEEDS = 3
"""Minimum seeds of a reliable result: the change of a short run may have either sign."""


def write_card(config: Config, pairs: int) -> Path:
    """Write the adapter of the median seed, its card and its curves to ``out``/adapter.

    The median is that of the held-out reward. The best seed may owe its reward to luck.
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
    draw_curves(history, ["reward", *names], out / "curves.svg")
    scores = {"seeds": config.seeds, "chosen": chosen, "before": before, "after": after}
    (out / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", "utf-8")
    (out / "README.md").write_text(format_card(config, pairs, chosen, before, after), "utf-8")
    return out


def format_card(config: Config, pairs: int, chosen: int, before: dict, after: dict) -> str:
    """Write the text of the card, which states only measured values."""
    data, seeds, lora = _read(config.data / "prepare.json"), config.seeds, config.lora
    weights = {name: f"{weight:g}" for name, weight in config.rewards.items() if weight}
    few = (
        f"**Only {len(seeds)} seeds**: too few for a reliable result, which needs {MIN_SEEDS}.\n\n"
    )
    critic = f"- Critic: {config.critic.model} ({'a server' if config.critic.url else 'local'})\n"
    costs = (f"- Seed {seed}: {_describe_cost(scores['cost'])}\n" for seed, scores in after.items())
    return f"""---
base_model: {config.model}
library_name: peft
tags: [chain-of-zoom, grpo, lora, super-resolution]
---

# Prompt LoRA for Chain-of-Zoom

Trained with GRPO on {config.model} by Chain-of-Zoom for ComfyUI {__version__}, after arXiv 2505.18600. \
Put `adapter_model.safetensors` and `adapter_config.json` into the same folder in `models/loras` \
and choose it in CoZ Load Prompt Extractor.

This file is of seed {chosen}, the median of {len(seeds)} by the held-out reward.

{few if len(seeds) < MIN_SEEDS else ""}## Held-out views, before and after

{_format_table(seeds, before, after)}

## Training

- Data: {pairs} pairs of views to train on, {after[chosen].get("pairs", 0)} held out; {join_values(data)}
- Rewards: {join_values(weights)}
{critic if "critic" in weights else ""}\
- LoRA: r {lora.r}, alpha {lora.alpha}, dropout {lora.dropout}, language model only
- {after[chosen]["steps"]} steps per seed, seeds {", ".join(map(str, seeds))}
{"".join(costs)}\
- Settings under `training`: {join_values(dict(sorted(config.training.items()))) or "none"}

![Curves](curves.svg)
"""


def join_values(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _describe_cost(cost: dict[str, Any]) -> str:
    parts = [
        f"{cost['seconds']} s on {cost['processes']} x {cost['device']}",
        f"{cost['tokens_per_second']} tokens per second",
    ]
    if "peak_memory_gb" in cost:
        parts.append(f"at most {cost['peak_memory_gb']} GiB per GPU")
    return ", ".join(parts)


def _format_table(seeds: list[int], before: dict, after: dict) -> str:
    names = [
        name
        for name, value in after[seeds[0]].items()
        if isinstance(value, float) and before[seeds[0]].get(name) is not None
    ]
    if not names:
        return "No pairs were held out."
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
    return "\n".join(lines)


def draw_curves(history: dict[int, list[dict]], names: list[str], path: Path) -> None:
    """Plot each quantity over the steps, with one line per seed."""
    with mpl.rc_context({"svg.fonttype": "none", "font.size": 8}):  # keeps the text searchable
        figure = Figure((6.4, 1.6 * len(names)), layout="constrained")
        for axes, name in zip(figure.subplots(len(names), squeeze=False)[:, 0], names, strict=True):
            axes.set_title(name, loc="left", weight="bold")
            axes.set_xlabel("step")
            for seed, entries in history.items():
                known = [entry for entry in entries if entry.get(name) is not None]
                steps, values = ([entry[key] for entry in known] for key in ("step", name))
                axes.plot(steps, values, linewidth=1, label=f"seed {seed}")
            axes.legend(loc="best", frameon=False)
        figure.savefig(path)


def _read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
