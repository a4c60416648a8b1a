"""What the pack uses of the host beyond comfy_api.latest, and whether this host has it.

On a new release of ComfyUI the failing tests name what moved and the file of ours that it concerns.
What CoZ Load Prompt Extractor needs of the Qwen classes it looks at itself: ``check_host`` in
nodes/qwen.py, test_qwen.py.
"""

import ast
import importlib
import inspect
import re
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import pytest

from tools.host import comfyui_version, host_path

ROOT = Path(__file__).parents[2]
VERSION = comfyui_version(host_path())

HOST = {path.stem for path in host_path().glob("*.py")} | {
    path.name for path in host_path().iterdir() if path.is_dir()
}
DOCUMENTED = "comfy_api.latest"

USED = {
    "comfy.cli_args.args.cache_none": ["loop.py"],
    "comfy.cli_args.args.disable_metadata": ["saved.py"],
    "comfy.lora.load_lora": [
        "extractor_loader.py(_, _, log_missing)",
        "lora.py(_, _, log_missing)",
    ],
    "comfy.lora.model_lora_keys_clip": ["extractor_loader.py(_, _)"],
    "comfy.lora.model_lora_keys_unet": ["lora.py(_, _)"],
    "comfy.lora_convert.convert_lora": ["lora.py(_)"],
    "comfy.model_management.get_free_memory": ["full_image.py(_)"],
    "comfy.model_management.intermediate_device": [
        "full_image.py()",
        "host.py()",
        "sample.py()",
        "saved.py()",
    ],
    "comfy.model_management.raise_non_oom": ["tiles.py(_)"],
    "comfy.model_management.soft_empty_cache": ["tiles.py()"],
    "comfy.model_management.throw_exception_if_processing_interrupted": [
        "detail.py()",
        "ensemble.py()",
        "measure.py()",
        "tile_prompts.py()",
        "tiles.py()",
        "video.py()",
    ],
    "comfy.ops.manual_cast": ["qwen.py"],
    "comfy.sample.sample_custom": [
        "diffusion.py(_, noise, cfg, sampler, sigmas, positive, negative, latent_image, callback, disable_pbar, seed)"
    ],
    "comfy.samplers.KSampler.SAMPLERS": ["refine.py"],
    "comfy.samplers.KSampler.SCHEDULERS": ["refine.py"],
    "comfy.samplers.sampler_object": ["diffusion.py(_)"],
    "comfy.sd.CLIP": [
        "qwen.py",
        "qwen.py(_, parameters, state_dict, model_options, disable_dynamic)",
    ],
    "comfy.sd.llama_detect": ["qwen.py(_)"],
    "comfy.sd1_clip.SD1ClipModel": ["qwen.py"],
    "comfy.sd1_clip.SD1Tokenizer": ["qwen.py"],
    "comfy.sd1_clip.SDClipModel": ["prompt.py", "qwen.py"],
    "comfy.sd1_clip.SDClipModel.process_tokens": ["qwen.py"],
    "comfy.text_encoders.llama.BaseGenerate": ["qwen.py"],
    "comfy.text_encoders.llama.BaseGenerate.generate": ["qwen.py"],
    "comfy.text_encoders.llama.BaseLlama": ["qwen.py"],
    "comfy.text_encoders.llama.BaseQwen3": ["qwen.py"],
    "comfy.text_encoders.llama.Llama2_": ["qwen.py", "qwen.py(_, device, dtype, ops)"],
    "comfy.text_encoders.llama.Qwen25_3BConfig": ["qwen.py"],
    "comfy.text_encoders.omnigen2.Qwen25_3BTokenizer": ["qwen.py"],
    "comfy.text_encoders.qwen_vl": ["qwen.py"],
    "comfy.text_encoders.qwen_vl.Qwen2VLVisionTransformer": [
        "qwen.py",
        "qwen.py(**, output_hidden_size, device, dtype, ops)",
    ],
    "comfy.text_encoders.qwen_vl.process_qwen2vl_images": ["qwen.py(_)"],
    "comfy.text_encoders.qwen_vl.qwen2vl_mrope_position_ids": ["qwen.py(_, _, _)"],
    "comfy.utils.ProgressBar": [
        "collect.py(_)",
        "consistency.py(_)",
        "measure.py(_)",
        "saved.py(_)",
        "tile_prompts.py(_)",
        "tiles.py(_)",
        "video.py(_)",
    ],
    "comfy.utils.get_attr": ["lora.py(_, _)"],
    "comfy.utils.calculate_parameters": ["qwen.py(_)"],
    "comfy.utils.convert_old_quants": ["qwen.py", "qwen_weights.py(_, metadata)"],
    "comfy.utils.load_torch_file": ["qwen.py", "qwen_weights.py(_, safe_load, return_metadata)"],
    "comfy.utils.state_dict_prefix_replace": ["qwen_weights.py(_, _)"],
    "comfy.weight_adapter.LoRAAdapter": ["lora.py"],
    "comfy_execution.cache_provider.register_cache_provider": ["cache.py(_)"],
    "comfy_execution.cache_provider.unregister_cache_provider": ["cache.py(_)"],
    "comfy_execution.graph_utils.ExecutionBlocker": ["gate.py(_)"],
    "comfy_execution.graph_utils.GraphBuilder": ["full_image.py()", "loop.py()"],
    "comfy_execution.graph_utils.is_link": ["files.py(_)", "video.py(_)"],
    "comfy_execution.progress.get_progress_state": ["video.py()"],
    "comfy_execution.utils.CurrentNodeContext": ["host.py(_, _, _)"],
    "comfy_execution.utils.get_executing_context": ["full_image.py()", "host.py()", "loop.py()"],
    "comfy_extras.nodes_upscale_model.ImageUpscaleWithModel.execute": [
        "tiles.py(_, _)",
        "upscale.py(_, _)",
    ],
    "comfyui_version.__version__": ["extractor_loader.py"],
    "folder_paths.add_model_folder_path": ["host.py(_, _)"],
    "folder_paths.get_filename_list": ["files.py(_)"],
    "folder_paths.get_full_path": ["files.py(_, _)"],
    "folder_paths.get_output_directory": ["preferences.py()", "saved.py()"],
    "folder_paths.get_save_image_path": ["saved.py(_, _, _, _)"],
    "folder_paths.get_temp_directory": ["preferences.py()", "video.py()"],
    "folder_paths.supported_pt_extensions": ["files.py"],
    "latent_preview.prepare_callback": ["diffusion.py(_, _)"],
    "nodes.CLIPTextEncode": ["tiles.py()"],
    "nodes.common_ksampler": ["refine.py(_, _, _, _, _, _, _, _, _, _)"],
    "server.PromptServer": ["__init__.py", "host.py"],
    "server.PromptServer.instance.app": ["__init__.py"],
    "server.PromptServer.instance.routes": ["__init__.py"],
}
"""Name in the host -> the files of nodes/ that take it by their imports, each with what it calls it
with: _ is a value that goes by its place."""

OF_OBJECTS = {
    "comfy.model_base.BaseModel.model_config": ["diffusion.py", "lora.py"],
    "comfy.model_patcher.ModelPatcher.add_patches": ["lora.py(_, _)", "lora.py(_, _, _)"],
    "comfy.model_patcher.ModelPatcher.clone": ["lora.py()"],
    "comfy.model_patcher.ModelPatcher.get_attachment": ["diffusion.py(_)"],
    "comfy.model_patcher.ModelPatcher.get_model_object": ["diffusion.py(_)"],
    "comfy.model_patcher.ModelPatcher.model": ["diffusion.py", "lora.py"],
    "comfy.model_patcher.ModelPatcher.set_attachments": ["lora.py(_, _)"],
    "comfy.sd.CLIP.add_patches": ["extractor_loader.py(_, _)"],
    "comfy.sd.CLIP.clone": ["extractor_loader.py()"],
    "comfy.sd.CLIP.cond_stage_model": ["extractor_loader.py", "prompt.py"],
    "comfy.sd.CLIP.decode": ["prompt.py(_)"],
    "comfy.sd.CLIP.encode_from_tokens_scheduled": ["encode.py(_)"],
    "comfy.sd.CLIP.generate": [
        "prompt.py(_, do_sample, max_length, min_p, repetition_penalty, **)"
    ],
    "comfy.sd.CLIP.patcher": ["qwen.py"],
    "comfy.sd.CLIP.tokenize": [
        *("encode.py(_)", "encode.py(_, tokenizer_options)", "prompt.py(_)", "prompt.py(_, image)")
    ],
    "comfy.sd.VAE.decode": ["diffusion.py(_)"],
    "comfy.sd.VAE.encode": ["diffusion.py(_)"],
    "comfy.sd.VAE.latent_dim": ["diffusion.py"],
    "comfy.sd.VAE.first_stage_model": ["lora.py"],
    "comfy.sd.VAE.patcher": ["lora.py"],
    "comfy.sd.VAE.spacial_compression_encode": ["diffusion.py()"],
    "comfy.sd.VAE.throw_exception_if_invalid": ["diffusion.py()"],
    "comfy.utils.ProgressBar.update_absolute": ["collect.py(_)", "saved.py", "video.py(_)"],
    "comfy_execution.graph.DynamicPrompt.all_node_ids": ["video.py()"],
    "comfy_execution.graph.DynamicPrompt.get_node": [
        "files.py(_)",
        "full_image.py(_)",
        "loop.py(_)",
    ],
    "comfy_execution.graph.DynamicPrompt.get_parent_node_id": ["video.py(_)"],
    "comfy_execution.graph_utils.GraphBuilder.finalize": ["full_image.py()", "loop.py()"],
    "comfy_execution.graph_utils.GraphBuilder.node": [
        "full_image.py(_, id, **)",
        "loop.py(_, id, **)",
    ],
    "comfy_execution.graph_utils.Node.out": ["full_image.py(_)", "loop.py(_)"],
    "comfy_execution.graph_utils.Node.set_override_display_id": ["loop.py(_)"],
    "comfy_execution.progress.ProgressRegistry.dynprompt": ["video.py"],
    "comfy_execution.utils.ExecutionContext.list_index": ["full_image.py", "host.py", "loop.py"],
    "comfy_execution.utils.ExecutionContext.node_id": ["host.py"],
    "comfy_execution.utils.ExecutionContext.prompt_id": ["host.py"],
    "nodes.CLIPTextEncode.encode": ["tiles.py(_, _)"],
    "server.PromptServer.client_id": ["host.py"],
    "server.PromptServer.send_progress_text": ["host.py(_, _, _)"],
}
"""The same of the objects that the host hands over, which no import shows."""


class Use(NamedTuple):
    name: str
    file: str
    call: str
    """Such as "(_, seed)"; empty where it is not called."""

    @classmethod
    def read(cls, name: str, text: str) -> "Use":
        file, bracket, rest = text.partition("(")
        return cls(name, file, bracket + rest)

    def __str__(self) -> str:
        return f"{self.name}{self.call} of nodes/{self.file}"


def uses(source: str, file: str) -> set[Use]:
    """What a file takes of the host by its imports."""
    tree = ast.parse(source)
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                bound[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                bound[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def name_of(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            owner = name_of(node.value)
            return f"{owner}.{node.attr}" if owner else ""
        name = bound.get(node.id, "") if isinstance(node, ast.Name) else ""
        is_hosts = name.partition(".")[0] in HOST and not f"{name}.".startswith(f"{DOCUMENTED}.")
        return name if is_hosts else ""

    found: set[Use] = set()
    parts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if id(node) not in parts and (name := name_of(node)):
            call = calls.get(id(node))
            found.add(Use(name, file, form(call) if call else ""))
    return found


def form(call: ast.Call) -> str:
    given = ["*" if isinstance(value, ast.Starred) else "_" for value in call.args]
    given += [keyword.arg or "**" for keyword in call.keywords]
    return f"({', '.join(given)})"


def of_pack() -> dict[str, list[str]]:
    found = defaultdict(list)
    for path in sorted((ROOT / "nodes").glob("*.py")):
        for use in sorted(uses(path.read_text("utf-8"), path.name)):
            found[use.name].append(use.file + use.call)
    return dict(sorted(found.items()))


def find(name: str) -> tuple[object, bool]:
    """What the running host has under a dotted name, and whether it is called with ``self`` first."""
    first, *rest = name.split(".")
    found, is_method, path = importlib.import_module(first), False, first
    for part in rest:
        if inspect.ismodule(found) and not hasattr(found, part):
            with suppress(ModuleNotFoundError):
                importlib.import_module(f"{path}.{part}")
        if hasattr(found, part):
            is_method = isinstance(
                inspect.getattr_static(found, part), FunctionType
            ) and inspect.isclass(found)
            found = getattr(found, part)
        elif not is_set_by(found, part):
            raise AttributeError(f"{path} has no {part}")
        path += f".{part}"
    return found, is_method


def is_set_by(owner, name: str) -> bool:
    return inspect.isclass(owner) and any(
        re.search(rf"\b(self|{each.__name__})\.{name}\b[^=(]*=", inspect.getsource(each))
        for each in owner.__mro__[:-1]
    )


def moved(use: Use) -> str:
    """What is wrong with it on this host; empty where nothing is."""
    try:
        found, is_method = find(use.name)
        if use.call:
            given = re.findall(r"\*{1,2}|\w+", use.call)
            places = [None] * (is_method + given.count("_"))
            names = {each: None for each in given if each.isidentifier() and each != "_"}
            signature = inspect.signature(found)
            bind = signature.bind_partial if "*" in use.call else signature.bind
            bind(*places, **names)
    except (AttributeError, ImportError, TypeError) as error:
        return f"ComfyUI {VERSION} has another {use}: {error}"
    return ""


def listed(table: dict[str, list[str]]) -> list:
    """The uses as parameters; a host that runs no VLM does not import nodes/qwen.py."""
    marks = dict.fromkeys(["qwen.py", "qwen_weights.py"], pytest.mark.since("0.27"))
    all_uses = [Use.read(name, text) for name, texts in table.items() for text in texts]
    return [pytest.param(use, marks=marks.get(use.file, ()), id=str(use)) for use in all_uses]


def test_the_list_is_what_the_code_imports():
    assert of_pack() == USED


def test_the_root_module_takes_nothing_of_the_host():
    assert uses((ROOT / "__init__.py").read_text("utf-8"), "__init__.py") == set()


@pytest.mark.parametrize("use", listed(OF_OBJECTS))
def test_what_is_asked_of_objects_is_what_the_code_asks(use):
    tree = ast.parse((ROOT / "nodes" / use.file).read_text("utf-8"))
    calls = {id(node.func): form(node) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    name = use.name.rpartition(".")[2]
    assert use.call in {calls.get(id(node), "") for node in asked if node.attr == name}


@pytest.mark.parametrize("use", listed(USED | OF_OBJECTS))
def test_this_host_has(pack, use):
    assert not moved(use)


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (Use("comfy.gone.thing", "a.py", ""), "comfy has no gone"),
        (Use("comfy.sd.gone", "a.py", ""), "comfy.sd has no gone"),
        (Use("gone", "a.py", ""), "No module named .gone"),
        (Use("comfy.sd.CLIP.gone", "a.py", "()"), "comfy.sd.CLIP has no gone"),
        (Use("folder_paths.get_full_path", "a.py", "(_)"), "missing a required argument"),
        (Use("folder_paths.get_full_path", "a.py", "(_, _, _)"), "too many positional arguments"),
        (Use("folder_paths.get_full_path", "a.py", "(_, _, gone)"), "unexpected keyword .*gone"),
        (Use("comfy.sd.CLIP.decode", "a.py", "(_, gone, **)"), "unexpected keyword .*gone"),
    ],
)
def test_what_moved_is_named(pack, use, error):
    told = moved(use)
    assert told.startswith(f"ComfyUI {VERSION} has another {use.name}{use.call} of nodes/a.py: ")
    assert re.search(error, told)
