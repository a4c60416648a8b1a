"""Find the published models in ComfyUI's model folders, and describe their content."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open

from coz.weights.invsr import read_noise_predictor
from coz.weights.ram import find_ram_weights
from coz.weights.read import (
    FORMAT,
    read_dape,
    read_prompt_lora,
    read_tagger,
    read_weights,
    require_safetensors,
)
from coz.weights.weight_file import SAFETENSORS_SUFFIXES, read_content

BUILTIN_MODEL = "coz_lite_x4.safetensors"
SHARD = re.compile(r"(.+-)\d{5}(-of-\d{5}\.safetensors)")


def require_sr_lora(path: Path) -> None:
    weights = read_weights(path)
    if not weights.lora:
        raise ValueError(
            f"{path.name}: expected the Chain-of-Zoom SR LoRA, but found a file of kind {weights.kind}; "
            "take model_20001.pkl"
        )


def require_vae_encoder(path: Path) -> None:
    weights = read_weights(path)
    if not weights.vae:
        raise ValueError(
            f"{path.name}: expected the Chain-of-Zoom VAE encoder, but found a file of kind "
            f"{weights.kind}; take vae_encoder_20001.pt"
        )


@dataclass(frozen=True)
class Role:
    """A model to look for, and how to recognize its file. The counts are those of the published file."""

    name: str
    option: str
    """Name of the option that takes a path."""
    folders: tuple[str, ...]
    """Model folders of ComfyUI."""
    pattern: str
    """Matches the names of the published files and of their usual copies."""
    source: str
    """The published file."""
    count: int = 0
    unit: str = "tensors"
    counted: str = ""
    """Pattern with one group, whose different values are counted. If it is empty, every tensor counts."""
    in_16_bits: str = ""
    """Pattern of the names of the weights that are published in 16 bits or more. If it is empty, all are."""
    require: Callable[[Path], object] = require_safetensors
    """Raises ValueError if the file is not what the loader expects."""


ROLES = (
    Role(
        "upscale model",
        "upscale-model",
        ("upscale_models",),
        re.escape(BUILTIN_MODEL),
        "any upscale model",
    ),
    Role(
        "SD3",
        "sd3",
        ("checkpoints",),
        r"sd3_medium|stable-diffusion-3-medium",
        "sd3_medium_incl_clips.safetensors of stabilityai/stable-diffusion-3-medium",
        count=24,
        unit="transformer blocks",
        counted=r"joint_blocks\.(\d+)\.",
        in_16_bits=r"model\.diffusion_model\.|first_stage_model\.",
    ),
    Role(
        "SR LoRA",
        "sr-lora",
        ("loras",),
        r"model_20001|coz.*sr.*lora",
        "model_20001.pkl of Chain-of-Zoom",
        count=94,
        require=require_sr_lora,
    ),
    Role(
        "VAE encoder",
        "vae-encoder",
        ("vae", "loras"),
        r"vae_encoder_20001|coz.*vae",
        "vae_encoder_20001.pt of Chain-of-Zoom",
        count=168,
        require=require_vae_encoder,
    ),
    Role(
        "Qwen2.5-VL-3B",
        "vlm",
        ("text_encoders",),
        r"qwen.?2.?5.?vl.?3b|qwen_2\.5_vl_fp16",
        "both .safetensors files of Qwen/Qwen2.5-VL-3B-Instruct",
        count=824,
    ),
    Role(
        "prompt LoRA",
        "prompt-lora",
        ("loras",),
        r"coz.*prompt.*|VLM_LoRA.*|adapter_model",
        "adapter_model.safetensors and adapter_config.json of Chain-of-Zoom",
        count=504,
        require=read_prompt_lora,
    ),
    Role(
        "RAM",
        "tagger",
        ("text_encoders",),
        r"\bram(?!_plus)(_|\b)",
        "ram_swin_large_14m.pth of xinyu1205/recognize_anything_model",
        count=366,
        unit="weights that rate tags",
        counted=r"^(label_embed|(?:visual_encoder|image_proj|wordvec_proj|fc|tagging_head)\..*"
        r"(?:weight|bias|bias_table))$",
        require=read_tagger,
    ),
    Role(
        "DAPE",
        "dape",
        ("loras",),
        "dape",
        "DAPE.pth of CSWRY/SeeSR",
        count=248,
        require=read_dape,
    ),
    Role(
        "InvSR",
        "invsr",
        ("model_patches", "upscale_models"),
        r"noise_predictor|invsr",
        "noise_predictor_sd_turbo_v5.pth of OAOA/InvSR",
        count=164,
        require=read_noise_predictor,
    ),
)
"""A row for each model."""


@dataclass
class FoundModel:
    """One model on disk, which may be split into several files."""

    role: Role
    paths: list[Path]
    name: str
    """The name by which ComfyUI's loaders know the first file."""
    folder: str = ""
    """The model folder of ComfyUI that it is in."""
    problem: str = ""
    """Why the loaders reject it; empty if they accept it."""
    facts: list[dict] = field(default_factory=list)
    """Of each file: bytes, sha256, tensors by dtype."""
    count: int = 0

    def register_for_loader(self) -> str:
        """Let loaders take this file even if others have the same name; return its name for a loader."""
        import folder_paths

        place = self.paths[0].parents[len(Path(self.name).parts) - 1]
        folder_paths.add_model_folder_path(self.folder, str(place), is_default=True)
        return self.name

    @property
    def is_as_published(self) -> bool:
        """Whether it has the count of the published file and was not converted."""
        return self.count == self.role.count and not self.is_converted

    @property
    def is_converted(self) -> bool:
        """Whether tools/convert.py made it."""
        (path, *_) = self.paths
        if path.suffix.lower() not in SAFETENSORS_SUFFIXES:
            return False
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") == FORMAT


def find_model(role: Role, given: Path | None) -> FoundModel | None:
    """Find the file of a role, at the ``given`` path or in ComfyUI's model folders."""
    import folder_paths

    if given:
        path = given.expanduser().absolute()
        return FoundModel(role, list_shards(path), path.name, role.folders[0])
    for folder in role.folders:
        names = folder_paths.get_filename_list(folder)
        for name in sorted(names):
            if re.search(role.pattern, name.replace("\\", "/"), re.IGNORECASE):
                path = Path(folder_paths.get_full_path(folder, name))
                return FoundModel(role, list_shards(path), name, folder)
    return None


def list_shards(path: Path) -> list[Path]:
    found = SHARD.fullmatch(path.name)
    others = path.parent.glob(f"{found[1]}*{found[2]}") if found else []
    return sorted(others) or [path]


def inspect(found: FoundModel) -> None:
    """Fill in the facts about the files, and the problem if the loaders reject them."""
    role, names = found.role, []
    try:
        for path in found.paths:
            role.require(path)
            found.facts.append({"bytes": path.stat().st_size, "sha256": hash_file(path)})
            dtypes = read_dtypes(path)
            found.facts[-1]["tensors"] = dict(Counter(dtypes.values()))
            names += dtypes
            rounded = [n for n in dtypes if re.match(role.in_16_bits, n) and "F8" in dtypes[n]]
            if role.count and rounded:
                raise ValueError(
                    f"{path.name}: {len(rounded)} of its weights are float8, which keeps 3 or 4 bits of "
                    f"each number. It runs, but cannot be compared with the published weights; take {role.source}"
                )
    except (ValueError, OSError) as error:
        found.problem = str(error)
    if role.counted:
        names = {match[1] for name in names if (match := re.search(role.counted, name))}
    found.count = len(names)


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def read_dtypes(path: Path) -> dict[str, str]:
    """Return tensor -> dtype as safetensors names it. The entries of a list are named by their places."""
    if path.suffix.lower() in SAFETENSORS_SUFFIXES:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    content, _ = read_content(path)
    content = find_ram_weights(content) or content
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    items = content.items() if isinstance(content, dict) else enumerate(content)
    short = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    return {str(name): short.get(value.dtype, str(value.dtype)) for name, value in items}


def describe(found: FoundModel) -> str:
    """Describe a model in lines for the terminal."""
    role = found.role
    lines = [f"{role.name}: {found.name}"]
    for path, facts in zip(found.paths, found.facts, strict=False):
        tensors = ", ".join(f"{count} {dtype}" for dtype, count in facts.get("tensors", {}).items())
        name = f"{path.name}: " if len(found.paths) > 1 else ""
        lines.append(f"  {name}{facts['bytes']:,} bytes, {tensors}, sha256 {facts['sha256']}")
    if found.problem:
        lines.append(f"  {found.problem}")
    elif role.count and found.is_as_published:
        lines.append(f"  {found.count} {role.unit}, as published")
    elif role.count and found.is_converted:
        lines.append(f"  {found.count} {role.unit}, by tools/convert.py")
    elif role.count:
        lines.append(f"  {found.count} {role.unit}, but the published file has {role.count}")
    return "\n".join(lines)


def to_entry(found: FoundModel) -> dict:
    """Return the entry of a model in verify.json, without the file's name and path."""
    published = found.is_as_published if found.role.count else None
    return {
        "role": found.role.name,
        "files": found.facts,
        "count": found.count,
        "unit": found.role.unit,
        "as_published": published,
        "problem": found.problem,
    }
