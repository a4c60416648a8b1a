"""The adapter_config.json that peft writes beside a LoRA like Chain-of-Zoom's."""

import json
import tempfile
from pathlib import Path

from tests.support.random_qwen import qwen25vl, with_prompt_lora


def record() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        with_prompt_lora(qwen25vl()).save_pretrained(folder)
        return json.loads(Path(folder, "adapter_config.json").read_text("utf-8"))
