import importlib
import json
import re
from pathlib import Path

import comfy.lora
import comfy.utils
import folder_paths
from comfy.weight_adapter import LoRAAdapter
from comfy_api.latest import io
from comfyui_version import __version__ as comfyui_version

from ..coz.peft import PROMPT_LORA
from ..coz.weights import read_prompt_lora
from .host import PACK, SEARCH_ALIASES

MODEL_LINK = "https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct"
LORA_LINK = "https://github.com/bryanswkim/Chain-of-Zoom/tree/main/ckpt"
OLDEST = (0, 27)
"""The first ComfyUI whose `generate` takes the positions of images."""

SHARD = re.compile(r"(.+-)\d{5}(-of-(\d{5})\.safetensors)")
INDEX = "model.safetensors.index.json"


def likely_first(folder: str, *patterns: str) -> list[str]:
    likely = re.compile("|".join(patterns), re.IGNORECASE)
    names = folder_paths.get_filename_list(folder)
    return sorted(names, key=lambda name: not likely.search(name))


def models() -> list[str]:
    return likely_first("text_encoders", "qwen.*vl")


def loras() -> list[str]:
    return ["none", *likely_first("loras", "coz", "adapter")]


def path_of(folder: str, name: str) -> Path:
    path = folder_paths.get_full_path(folder, name)
    if path is None:
        raise ValueError(missing(folder, name))
    return Path(path)


def missing(folder: str, name: str) -> str:
    own = f"both .safetensors files and {INDEX} of {MODEL_LINK}"
    if folder == "loras":
        own = f"adapter_model.safetensors and adapter_config.json of VLM_LoRA in {LORA_LINK}"
    return f"{name} is not in models/{folder}. Put the file there and press R. Chain-of-Zoom's own: {own}"


def shards(path: Path) -> list[Path]:
    """The files that the model is spread over, the chosen one among them."""
    names = {path.name}
    index = path.with_name(INDEX)
    if index.is_file():
        try:
            indexed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{INDEX}: expected the list of the files of {path.name}, but found something else; download it again"
            ) from error
        names = indexed if path.name in indexed else names
    elif numbered := SHARD.fullmatch(path.name):
        head, tail, last = numbered.groups()
        names = {f"{head}{i:05}{tail}" for i in range(1, int(last) + 1)}
    paths = [path.with_name(name) for name in sorted(names)]
    if absent := [other.name for other in paths if not other.is_file()]:
        raise ValueError(
            f"{path.name}: expected {len(paths)} files of one model beside each other, but found no "
            f"{', '.join(absent)} in {path.parent}; take the files of {MODEL_LINK}"
        )
    return paths


def require_host() -> None:
    version = tuple(map(int, re.findall(r"\d+", comfyui_version)[:2]))
    if version < OLDEST:
        raise RuntimeError(
            f"The prompt extractor needs ComfyUI 0.27 or newer; this is {comfyui_version}. Update ComfyUI, "
            "or type the prompts yourself"
        )


def load(paths: list[Path]):
    try:
        return importlib.import_module(".qwen", __package__).load(paths)
    except (ImportError, AttributeError, TypeError) as error:
        pyproject = (PACK / "pyproject.toml").read_text(encoding="utf-8")
        (pack,) = re.findall(r'^version = "(.+)"', pyproject, re.MULTILINE)
        raise RuntimeError(
            "This version of ComfyUI has changed its Qwen classes, which CoZ Load Prompt Extractor is built "
            f"from; update Chain-of-Zoom (pack {pack}, ComfyUI {comfyui_version}: {error})"
        ) from error


def with_lora(clip, path: Path, strength: float):
    """A copy of clip with a LoRA that fits: the host itself only logs what does not."""
    lora = read_prompt_lora(path)
    network = clip.cond_stage_model
    places = comfy.lora.model_lora_keys_clip(network, {})
    layers = {key.removesuffix(".alpha") for key in lora if key.endswith(".alpha")}
    ours, its = depth(places), depth(layers)
    lost = sorted(layers - places.keys())
    # A part of the layers may be meant; all of a lesser number are another model's.
    if lost or (len(its) == max(its, default=0) + 1 < len(ours)):
        raise ValueError(
            f"{path.name} does not fit vlm: {len(lost)} of its {len(layers)} layers have no place there. It is "
            f"for a language model of {len(its)} blocks, vlm has {len(ours)}. Chain-of-Zoom's is for "
            "Qwen2.5-VL-3B-Instruct"
        )
    patches = comfy.lora.load_lora(lora, places, log_missing=False)
    for target, patch in patches.items():
        expected = tuple(comfy.utils.get_attr(network, target).shape)
        if isinstance(patch, LoRAAdapter):
            up, down, *_ = patch.weights
            found = (up.shape[0], down.shape[1])
            if found != expected:
                raise ValueError(
                    f"{path.name} does not fit vlm: its layer for {target} is {found[0]} x {found[1]}, the "
                    f"model's {expected[0]} x {expected[1]}. Chain-of-Zoom's is for Qwen2.5-VL-3B-Instruct"
                )
    clip = clip.clone()
    clip.add_patches(patches, strength)
    return clip


def depth(layers) -> set[int]:
    """The numbers of the language model's blocks among the layers."""
    pattern = re.compile(re.escape(PROMPT_LORA) + r"model\.layers\.(\d+)\.")
    return {int(found[1]) for layer in layers if (found := pattern.match(layer))}


class CoZLoadPromptExtractor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZLoadPromptExtractor",
            display_name="CoZ Load Prompt Extractor (Qwen2.5-VL-3B)",
            category="Chain-of-Zoom/load",
            description="Loads Qwen2.5-VL-3B-Instruct, the vision-language model of the Chain-of-Zoom paper, with or "
            "without the paper's LoRA. ComfyUI's own Generate Text takes it as well. Needs ComfyUI 0.27.",
            search_aliases=[
                *SEARCH_ALIASES,
                *("chain of zoom", "VLM", "LLM", "Qwen", "caption", "image to text", "load clip"),
            ],
            inputs=[
                io.Combo.Input(
                    "vlm_name",
                    options=models(),
                    tooltip="A file of models/text_encoders with all of Qwen2.5-VL-3B-Instruct, its visual weights too; or "
                    "the first of its files as downloaded from Hugging Face (model-00001-of-00002.safetensors), "
                    "the others beside it.",
                ),
                io.Combo.Input(
                    "lora_name",
                    options=loras(),
                    default="none",
                    tooltip="A file of models/loras: the paper's prompt LoRA as published (PEFT, its "
                    "adapter_config.json beside it) or converted. none: the model as it is.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Share of the LoRA's change. 0 changes nothing, 1 is as trained.",
                ),
            ],
            outputs=[
                io.Clip.Output(
                    "CLIP",
                    display_name="vlm",
                    tooltip="For VLM Prompt Extractor, Chain Loop or Generate Text.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, vlm_name, lora_name):
        """In place of the host's "value not in list", which does not say where to get the file."""
        # Found by the host, not in its list: workflows travel, and Windows lists other slashes.
        for folder, name in (("text_encoders", vlm_name), ("loras", lora_name)):
            if name not in {None, "none"} and not folder_paths.get_full_path(folder, name):
                return missing(folder, name)
        return True

    @classmethod
    def execute(cls, vlm_name, lora_name="none", lora_strength=1.0) -> io.NodeOutput:
        require_host()
        clip = load(shards(path_of("text_encoders", vlm_name)))
        if lora_name != "none" and lora_strength != 0:
            clip = with_lora(clip, path_of("loras", lora_name), lora_strength)
        return io.NodeOutput(clip)
