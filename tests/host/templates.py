"""The workflow templates on a small picture and small random models, in the host's executor on a card."""

import gc
import threading

import torch

from tests.support.host_with_card import HostWithCard
from tests.support.small_models import small_clip, small_sd3, small_vae
from tools.host import ROOT
from tools.host.workflow import read_prompt

from .executor import Executor

START, VLM, PAPER, WHOLE = TEMPLATES = ("1 Start", "3 Chain-of-Zoom", "4 Chain", "6 Whole")
"""What the names of their files begin with."""

SMALL = {
    "CoZChainLoop": {"size": 32, "steps": 2},
    "CoZFullImage": {"scale": 2.0, "tile": 64, "overlap": 16},
}
GIVEN = {"CoZSamplePicture": "TestPicture", "CheckpointLoaderSimple": "TestModels"}
"""Classes of the templates -> those that give what is small."""


def read_template(name, number=0):
    """The prompt of a template; each number gives another image."""
    (path,) = (ROOT / "workflows").glob(f"{name}*.json")
    prompt = read_prompt(path)
    for key, node in [*prompt.items()]:
        kind = node["class_type"]
        if kind in GIVEN:
            node |= {"class_type": GIVEN[kind], "inputs": {}}
        elif kind == "CoZLoadSRLoRA":
            node["inputs"] |= {"lora_name": "on_card_20001.pkl", "vae_encoder_name": "none"}
        elif kind in {"CLIPLoader", "CoZLoadPromptExtractor"}:
            vlm = {"vlm_name": "qwen2.5-vl.safetensors", "lora_name": "none", "lora_strength": 1.0}
            node |= {"class_type": "CoZLoadPromptExtractor", "inputs": vlm}
        elif kind in SMALL:
            varied = "center_x" if kind == "CoZChainLoop" else "consistency"
            node["inputs"] |= SMALL[kind] | {varied: 0.2 + number / 200}
            if name in {VLM, PAPER}:
                node["inputs"] |= {"prompting.max_tokens": 3, "steps": 1}
            prompt["keep"] = {"class_type": "TestKeep", "inputs": {"image": [key, 0]}}
    return prompt


def give_models(self):
    """Give the small models as Load Checkpoint does; Select Device nodes can load them again."""
    model, clip, vae = small_sd3(), small_clip(), small_vae()
    model.cached_patcher_init = (small_sd3, ())
    clip.patcher.cached_patcher_init = (lambda: small_clip().patcher, ())
    vae.patcher.cached_patcher_init = (lambda: small_vae().patcher, ())
    return model, clip, vae


class Templates:
    """Runs them on one card."""

    def __init__(self, kept, steps, **options):
        self.host = HostWithCard(**options)
        self.memory = self.host.card.memory
        self.kept = kept
        self.steps = steps
        """The pack's own cache."""
        self.executor = Executor("RAM_PRESSURE")
        # As where a computer is short of memory: the host keeps nothing of former prompts.
        self.executor.executor.cache_args["ram_inactive"] = 1e6

    def forget(self) -> None:
        """Let the next prompt run whole."""
        self.steps.clear()
        with self.host.patched():  # whose list of models is changed when one is freed
            self.executor.executor.reset()
            gc.collect()

    def run(self, prompt) -> torch.Tensor:
        """The image at the end.

        Raises:
            RuntimeError: With the message that the user reads.
        """
        import nodes

        outputs = [
            key
            for key, node in prompt.items()
            if getattr(nodes.NODE_CLASS_MAPPINGS[node["class_type"]], "OUTPUT_NODE", False)
        ]
        with self.host.running():
            self.executor.run(prompt, *outputs)
        del self.kept[:-1]  # if nothing changed, it is that of the last run
        return self.kept[0]["image"]

    def count(self):
        """What is there after a prompt and may not grow."""
        from comfy.model_patcher import ModelPatcher

        with self.host.patched():
            gc.collect()
        alive = gc.get_objects()
        return {
            "live": self.memory.live,
            "loaded": len(self.host._loaded),
            "patchers": sum(issubclass(type(one), ModelPatcher) for one in alive),
            "tensors": sum(issubclass(type(one), torch.Tensor) for one in alive),
            "threads": threading.active_count(),
            "steps": self.steps.size,
        }
