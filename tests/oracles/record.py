"""Record what diffusers, transformers and peft give, for the tests that compare with it.

python -m tests.oracles.record [NAME ...]    write tests/data/oracles; without a name, all of it
"""

import json
import sys
from importlib import import_module
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "data" / "oracles"

TENSORS = ("sd3", "qwen")
TEXTS = ("layouts", "adapter_config", "metrics")
"""In JSON; the tensors need the layouts."""


def make(name: str):
    return import_module(f"tests.oracles.{name}").record()


def read(name: str) -> dict[str, Tensor]:
    return load_file(FOLDER / f"{name}.safetensors")


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names or (*TEXTS, *TENSORS):
        if name in TENSORS:
            save_file(make(name), FOLDER / f"{name}.safetensors")
        else:
            (FOLDER / f"{name}.json").write_text(write_json(make(name)), "utf-8")


def write_json(content: dict) -> str:
    """A line for each entry, so that a change shows as one."""
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    main(sys.argv[1:])
