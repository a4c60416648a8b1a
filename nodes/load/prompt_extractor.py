import json
import os
import re
from pathlib import Path

from comfy_api.latest import io

from ...coz.weights.lora import few
from ..host.files import likely_first, path_of, validate_names
from ..host.lora import with_lora
from ..host.qwen_loader import load, require_host
from ..host.qwen_weights import MODEL_LINK

LORA_LINK = "https://github.com/bryanswkim/Chain-of-Zoom/tree/main/ckpt"

SHARD = re.compile(r"(.+-)\d{5}(-of-(\d{5})\.safetensors)")
INDEX = "model.safetensors.index.json"
VLM = (f"both .safetensors files and {INDEX} of {MODEL_LINK}", "text_encoders")
LORA = (f"adapter_model.safetensors and adapter_config.json of VLM_LoRA in {LORA_LINK}", "loras")
"""Chain-of-Zoom's own files, and the folder that such files are in."""


def shards(path: Path) -> list[Path]:
    """The files that the model is spread over, the chosen one among them."""
    names = {path.name}
    index = path.with_name(INDEX)
    if index.is_file():
        try:
            indexed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not all(name and Path(name).name == name for name in indexed):
                raise ValueError("it leads out of the folder")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{INDEX}: expected the list of the files of {path.name}, but found something else; download it again"
            ) from error
        names = indexed if path.name in indexed else names
    elif numbered := SHARD.fullmatch(path.name):
        head, tail, last = numbered.groups()
        names = {f"{head}{i:05}{tail}" for i in range(1, int(last) + 1)}
    paths = [path.with_name(name) for name in sorted(names)]
    if absent := [other.name for other in paths if not os.path.isfile(other)]:
        raise ValueError(
            f"{path.name}: expected {len(paths)} files of one model beside each other, but found no "
            f"{few(absent)} in {path.parent}; take the files of {MODEL_LINK}"
        )
    return paths


class CoZLoadPromptExtractor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZLoadPromptExtractor",
            display_name="CoZ Load Prompt Extractor (Qwen2.5-VL-3B)",
            category="Chain-of-Zoom/load",
            description="Loads Qwen2.5-VL-3B-Instruct, the vision-language model of the Chain-of-Zoom "
            "paper, with or without the paper's LoRA. ComfyUI's own Generate Text node also accepts it. "
            "Needs ComfyUI 0.27 or newer.",
            search_aliases=["load clip", "load VLM", "VLM", "LLM", "caption", "image to text"],
            inputs=[
                io.Combo.Input(
                    "vlm_name",
                    options=likely_first("qwen.*vl", *VLM[1:]),
                    tooltip="A file of models/text_encoders that holds all weights of "
                    "Qwen2.5-VL-3B-Instruct, the visual ones too; or the first of its files from Hugging "
                    "Face (model-00001-of-00002.safetensors), with the others beside it.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=["none", *likely_first("coz|adapter", *LORA[1:])],
                    default="none",
                    tooltip="A file of models/loras: the paper's prompt LoRA as published (PEFT, with "
                    "its adapter_config.json beside it) or converted. none: no LoRA.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Strength of the LoRA. 0 changes nothing; 1 is as trained.",
                ),
            ],
            outputs=[
                io.Clip.Output(
                    "CLIP",
                    display_name="vlm",
                    tooltip="The model, for VLM Prompt Extractor, Chain Loop, Full-Image SR or Generate "
                    "Text.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, vlm_name, lora_name):
        return validate_names((vlm_name, VLM), (lora_name, LORA))

    @classmethod
    def execute(cls, vlm_name, lora_name="none", lora_strength=1.0) -> io.NodeOutput:
        require_host()
        clip = load(shards(path_of(vlm_name, *VLM)))
        if lora_name != "none" and lora_strength != 0:
            clip = with_lora(clip, path_of(lora_name, *LORA), lora_strength)
        return io.NodeOutput(clip)
