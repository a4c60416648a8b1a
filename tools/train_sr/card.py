"""Write the card of a trained SR LoRA: its data, seed, losses and settings."""

import json
from math import ceil
from pathlib import Path
from statistics import mean
from typing import Any

from coz.chain.zoom_chain import __version__
from tools.train_grpo.card import draw_curves, join_values

from .config import TrainingConfig

SHOWN_STEPS = 100
"""Maximum number of steps at the beginning and at the end whose losses are averaged for the table."""


def write_card(
    config: TrainingConfig, folder: Path, settings: dict[str, Any], losses: list[dict], cost: dict
) -> None:
    """Write README.md, which states only measured values, and curves.svg into the folder of the result."""
    names = [name for name in losses[0] if name != "step"]
    draw_curves({config.seed: losses}, names, folder / "curves.svg")
    shown = min(SHOWN_STEPS, ceil(len(losses) / 4))
    first, last = losses[:shown], losses[-shown:]
    model = Path(config.model).name if Path(config.model).is_dir() else config.model
    rows = "\n".join(
        f"| {name} | {mean(e[name] for e in first):.4g} | {mean(e[name] for e in last):.4g} |"
        for name in names
    )
    data = json.loads((config.data / "prepare.json").read_text("utf-8"))
    data = {name: value for name, value in data.items() if value is not None}
    each = config.batch * config.accumulation * settings["processes"]
    other = {
        key: value for key, value in settings.items() if value and key not in ("model", "seed")
    }
    card = f"""---
base_model: {model}
tags: [chain-of-zoom, lora, super-resolution]
---

# SR LoRA for Chain-of-Zoom

Trained on {model} by Chain-of-Zoom for ComfyUI {__version__}, after arXiv 2505.18600. Put \
`sr_lora.safetensors` into `models/loras` and `vae_encoder.safetensors` into `models/vae`, and choose both \
in CoZ Load SR LoRA, which reads the latent convention ({config.latent_shift}) from the file.

## Losses

The mean of the first and of the last {shown} of {len(losses)} steps.

| | first | last |
|---|---|---|
{rows}

![Curves](curves.svg)

## Training

- Data: {settings["crops"]} crops, {join_values(data)}
- {len(losses)} steps of {each} crops, seed {config.seed}
- Measured in the last call: {join_values(cost)}
- Settings: {join_values(other)}
"""
    (folder / "README.md").write_text(card, "utf-8")
