"""Write sparse weight files of the real sizes for benchmarks.card. Their data takes no disk space."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tests.support.random_sd3 import autoencoder, clip_text, coz_lora, t5_xxl, with_coz_encoder

from .card_parts import DECODE, ENCODE, NETWORK, PREFILL, TEXT, TOKENS, VISION

PROMPT_LORA_RANK, PROMPT_LORA_ALPHA = 8, 32
T5_PREFIX = "text_encoders.t5xxl."
DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
DTYPE_NAMES[torch.float8_e4m3fn] = "F8_E4M3"


class Sizes(NamedTuple):
    """Numbers of blocks and layers of the models; the defaults are the real ones."""

    sd3_blocks: int = 24
    qwen_layers: int = 36
    qwen_vision_layers: int = 32
    rrdb_blocks: int = 23
    has_t5: bool = True


Shapes = dict[str, tuple[torch.dtype, torch.Size]]


def list_shapes(network: nn.Module, prefix: str = "", dtype: torch.dtype = torch.float16) -> Shapes:
    return {f"{prefix}{name}": (dtype, x.shape) for name, x in network.state_dict().items()}


def write_sparse_file(path: Path, shapes: Mapping[str, tuple[torch.dtype, torch.Size]]) -> None:
    """Write a sparse safetensors file, in which all weights are zeros."""
    header, end = {}, 0
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": DTYPE_NAMES[dtype],
            "shape": [*shape],
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def list_sd3(sizes: Sizes, t5_dtype: torch.dtype) -> Shapes:
    """List the weights of the checkpoint of SD3-medium with its text encoders."""
    import comfy.ops
    from comfy.diffusers_convert import convert_vae_state_dict
    from comfy.ldm.modules.diffusionmodules.mmdit import MMDiT

    width = 64 * sizes.sd3_blocks
    embedder = {"in_features": 4096, "out_features": width}
    meta = torch.device("meta")
    transformer = MMDiT(
        input_size=None,
        in_channels=16,
        depth=sizes.sd3_blocks,
        adm_in_channels=2048,
        context_embedder_config={"target": "torch.nn.Linear", "params": embedder},
        pos_embed_max_size=192,
        num_patches=192**2,
        dtype=torch.float16,
        device=meta,
        operations=comfy.ops.disable_weight_init,
    )
    vae = convert_vae_state_dict(autoencoder().state_dict())
    return {
        **list_shapes(transformer, "model.diffusion_model."),
        **{f"first_stage_model.{name}": (torch.float16, x.shape) for name, x in vae.items()},
        **list_shapes(clip_text(False, meta), "text_encoders.clip_l.transformer."),
        **list_shapes(clip_text(True, meta), "text_encoders.clip_g.transformer."),
        **(list_shapes(t5_xxl(meta), f"{T5_PREFIX}transformer.", t5_dtype) if sizes.has_t5 else {}),
    }


def list_qwen(sizes: Sizes, pack_name: str) -> tuple[Shapes, Shapes]:
    """List the weights of Qwen2.5-VL-3B, and those of the paper's LoRA for it."""
    import importlib

    import comfy.ops

    qwen = importlib.import_module(f"{pack_name}.nodes.host.qwen")
    text = {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008}
    text |= {"num_attention_heads": 16, "num_key_value_heads": 2}
    text["num_hidden_layers"] = sizes.qwen_layers
    vision = {"hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    vision["num_layers"] = sizes.qwen_vision_layers
    config = {"text": text, "vision": vision}
    network = qwen.Network(config, torch.bfloat16, "meta", comfy.ops.manual_cast)
    lora = {}
    for name, module in network.model.layers.named_modules():
        if name.endswith("_proj"):
            rows, columns = module.weight.shape
            layer = f"base_model.model.model.layers.{name}"
            lora[f"{layer}.lora_A.weight"] = torch.float32, torch.Size((PROMPT_LORA_RANK, columns))
            lora[f"{layer}.lora_B.weight"] = torch.float32, torch.Size((rows, PROMPT_LORA_RANK))
    return list_shapes(network, dtype=torch.bfloat16), lora


def count_bytes(shapes: Shapes, *prefixes: str) -> int:
    """Count the bytes of the weights whose names start with one of the prefixes."""
    return sum(
        math.prod(shape) * dtype.itemsize
        for name, (dtype, shape) in shapes.items()
        if name.startswith(prefixes)
    )


class Files(NamedTuple):
    """Names of the three checkpoints of SD3, and sizes of weights."""

    t5_fp8: str
    t5_fp16: str
    no_t5: str
    weight_bytes: dict[str, int]
    """Part of a step -> bytes of its weights."""
    vlm_bytes: int


def write_files(folder: Path, sizes: Sizes, pack_name: str) -> Files:
    """Write all files under the names that templates 2 and 4 ask for, and Real-ESRGAN x4plus."""
    from spandrel.architectures.ESRGAN import ESRGAN

    names = [f"sd3_medium_incl_clips{end}.safetensors" for end in ("_t5xxlfp8", "_t5xxlfp16", "")]
    checkpoint = list_sd3(sizes, torch.float8_e4m3fn)
    small = {name: x for name, x in checkpoint.items() if not name.startswith(T5_PREFIX)}
    large = {name: (torch.float16, shape) for name, (_, shape) in checkpoint.items()}
    for name, shapes in zip(names, (checkpoint, large, small), strict=True):
        write_sparse_file(folder / "checkpoints" / name, shapes)
    (folder / "loras").mkdir()
    torch.save(coz_lora(sizes.sd3_blocks), folder / "loras" / "model_20001.pkl")
    (folder / "vae").mkdir()
    encoder = with_coz_encoder(autoencoder()).half().encoder.state_dict()
    torch.save(encoder, folder / "vae" / "vae_encoder_20001.pt")
    qwen, lora = list_qwen(sizes, pack_name)
    half = len(qwen) // 2
    for i, part in enumerate(([*qwen][:half], [*qwen][half:]), 1):
        name = f"model-0000{i}-of-00002.safetensors"
        path = folder / "text_encoders" / "Qwen2.5-VL-3B-Instruct" / name
        write_sparse_file(path, {key: qwen[key] for key in part})
    adapter = folder / "loras" / "coz_prompt_lora"
    write_sparse_file(adapter / "adapter_model.safetensors", lora)
    config = {"r": PROMPT_LORA_RANK, "lora_alpha": PROMPT_LORA_ALPHA, "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    rrdb = list_shapes(ESRGAN(num_blocks=sizes.rrdb_blocks), dtype=torch.float32)
    write_sparse_file(folder / "upscale_models" / "RealESRGAN_x4plus.safetensors", rrdb)
    language = count_bytes(qwen, "model.")
    weight_bytes = {
        VISION: count_bytes(qwen, "visual."),
        PREFILL: language - count_bytes(qwen, "model.embed_tokens."),
        TOKENS: language,
        TEXT: count_bytes(checkpoint, "text_encoders."),
        ENCODE: count_bytes(checkpoint, "first_stage_model.encoder."),
        NETWORK: count_bytes(checkpoint, "model."),
        DECODE: count_bytes(checkpoint, "first_stage_model.decoder."),
    }
    return Files(*names, weight_bytes, count_bytes(qwen, ""))
