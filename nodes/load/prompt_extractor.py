import json
import os
import re
from pathlib import Path

from comfy_api.latest import io

from ...coz.weights.lora import list_few
from ..host.files import list_files, require_file, validate_names
from ..host.lora import patch_clip
from ..host.qwen_loader import load_qwen
from ..host.qwen_weights import MODEL_LINK

LORA_LINK = "https://github.com/bryanswkim/Chain-of-Zoom/tree/main/ckpt"

SHARD_NAME = re.compile(r"(.+-)\d{5}(-of-(\d{5})\.safetensors)")
INDEX_NAME = "model.safetensors.index.json"
VLM_ORIGIN_AND_FOLDER = (
    f"both .safetensors files and {INDEX_NAME} of {MODEL_LINK}",
    "text_encoders",
)
LORA_ORIGIN_AND_FOLDER = (
    f"adapter_model.safetensors and adapter_config.json of VLM_LoRA in {LORA_LINK}",
    "loras",
)
"""What an error says after "Chain-of-Zoom uses", and the model folder for the file."""


def find_shards(path: Path) -> list[Path]:
    """Find all files of the model that the chosen file belongs to."""
    names = {path.name}
    index = path.with_name(INDEX_NAME)
    if index.is_file():
        try:
            indexed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            if not all(name and Path(name).name == name for name in indexed):
                raise ValueError("it names files outside its folder")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{INDEX_NAME}: expected a list of the model's files, but it cannot be read; download it again"
            ) from error
        names = indexed if path.name in indexed else names
    elif numbered := SHARD_NAME.fullmatch(path.name):
        head, tail, last = numbered.groups()
        names = {f"{head}{i:05}{tail}" for i in range(1, int(last) + 1)}
    paths = [path.with_name(name) for name in sorted(names)]
    if absent := [other.name for other in paths if not os.path.isfile(other)]:
        raise ValueError(
            f"{path.name}: expected {len(paths)} files of one model beside each other, but found no "
            f"{list_few(absent)} in {path.parent}; take the files of {MODEL_LINK}"
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
            "paper, with or without the paper's LoRA. ComfyUI's own Generate Text node also accepts it.",
            search_aliases=["load clip", "load VLM", "VLM", "LLM", "caption", "image to text"],
            inputs=[
                io.Combo.Input(
                    "vlm_name",
                    options=list_files("qwen.*vl", *VLM_ORIGIN_AND_FOLDER[1:]),
                    tooltip="A file of models/text_encoders. It may be one file with all weights of "
                    "Qwen2.5-VL-3B-Instruct and its vision part, which reads images. It may also be the "
                    "first file from Hugging Face (model-00001-of-00002.safetensors); keep the other "
                    "files in the same folder.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=["none", *list_files("coz|adapter", *LORA_ORIGIN_AND_FOLDER[1:])],
                    default="none",
                    tooltip="A file of models/loras: the prompt LoRA of the paper, either as published "
                    "(with adapter_config.json in the same folder) or converted. none: no LoRA.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Strength of the LoRA. 0: no effect. 1: as trained.",
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
        return validate_names(
            (vlm_name, VLM_ORIGIN_AND_FOLDER), (lora_name, LORA_ORIGIN_AND_FOLDER)
        )

    @classmethod
    def execute(cls, vlm_name, lora_name="none", lora_strength=1.0) -> io.NodeOutput:
        clip = load_qwen(find_shards(require_file(vlm_name, *VLM_ORIGIN_AND_FOLDER)))
        if lora_name != "none" and lora_strength != 0:
            clip = patch_clip(clip, require_file(lora_name, *LORA_ORIGIN_AND_FOLDER), lora_strength)
        return io.NodeOutput(clip)
