"""Random weights of the structure of SD3 and Chain-of-Zoom's files: nothing has to be downloaded.

`draw_sd3`, `draw_autoencoder` and `draw_coz_encoder` give the weights of the networks of diffusers
without loading it, which takes seconds.
"""

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tools.host import host_path

from .random_weights import draw_recorded, draw_weights, randomise, read_layouts

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection, T5EncoderModel

RANK = 4
ENCODER_LAYERS = ("conv", "to_q", "to_k", "to_v", "to_out.0")
TEXT_WIDTH, POOLED_WIDTH = 32, 24
"""Of the tiny text encoders; SD3's are 4096 and 2048."""


def draw_sd3() -> dict[str, Tensor]:
    """The weights of `sd3_transformer(2)`."""
    return draw_recorded("sd3_transformer") | {"pos_embed.pos_embed": make_positions(192, 128)}


def make_positions(side: int, width: int) -> Tensor:
    """The sines and cosines of places by which SD3 knows where a patch is; the model's own side is 64."""
    places = torch.arange(side, dtype=torch.float64) * 64 / side
    angles = places[:, None] / 10000 ** (torch.arange(width // 4, dtype=torch.float64) * 4 / width)
    waves = torch.cat([angles.sin(), angles.cos()], 1).float()
    columns, rows = waves.expand(side, -1, -1), waves[:, None].expand(-1, side, -1)
    return torch.cat([columns, rows], -1).reshape(1, side * side, width)


def draw_autoencoder(latent_channels: int = 16, width: int = 128) -> dict[str, Tensor]:
    """The weights of that `autoencoder`."""
    return draw_recorded(f"autoencoder_{latent_channels}_{width}")


def draw_coz_encoder(autoencoder: dict[str, Tensor], seed: int = 4) -> dict[str, Tensor]:
    """The .pt file of these weights' encoder with Chain-of-Zoom's adapter, as of `with_coz_encoder`."""
    generator = torch.Generator().manual_seed(seed)
    file = {}
    for name, weight in autoencoder.items():
        layer, _, kind = name.removeprefix("encoder.").rpartition(".")
        if not name.startswith("encoder."):
            continue
        adapted = weight.ndim if kind == "weight" else autoencoder[f"encoder.{layer}.weight"].ndim
        if adapted == 1 or not any(part in layer for part in ENCODER_LAYERS):
            file[f"{layer}.{kind}"] = weight
            continue
        file[f"{layer}.base_layer.{kind}"] = weight
        if kind == "weight":
            rows, columns, *kernel = weight.shape
            shapes = {"A": (RANK, columns, *kernel), "B": (rows, RANK, *[1] * len(kernel))}
            for end, shape in shapes.items():
                factor = torch.randn(shape, generator=generator) * 0.03
                file[f"{layer}.lora_{end}.default_encoder.weight"] = factor
    return file


def draw_clip_l() -> dict[str, Tensor]:
    """CLIP-L in float16, at its size. Its layers are all the same, for the sake of time."""
    layout = read_layouts()["clip_l"]
    first = {name: shape for name, shape in layout.items() if not re.search(r"\.[1-9]\d*\.", name)}
    drawn = {name: weight.half() for name, weight in draw_weights(first, 0).items()}
    return {f"text_model.{name}": drawn[re.sub(r"\.\d+\.", ".0.", name)].clone() for name in layout}


def draw_conditioning(batch=1, width=4096, pooled=2048, seed=1) -> list:
    """A CONDITIONING of the host, of SD3's sizes by default."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(batch, 77, width, generator=generator) * 0.3
    return [[context, {"pooled_output": torch.randn(batch, pooled, generator=generator) * 0.3}]]


def sd3_transformer(blocks: int, seed: int = 0) -> "SD3Transformer2DModel":
    """SD3-medium has 24 blocks; width and heads follow from their number, as in the host."""
    from diffusers import SD3Transformer2DModel

    network = SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        num_layers=blocks,
        attention_head_dim=64,
        num_attention_heads=blocks,
        joint_attention_dim=4096,
        caption_projection_dim=64 * blocks,
        pooled_projection_dim=2048,
        out_channels=16,
        pos_embed_max_size=192,
    )
    return randomise(network, seed)


def autoencoder(latent_channels: int = 16, width: int = 128, seed: int = 0) -> "AutoencoderKL":
    """SD3's VAE, or with 4 channels that of SD1.5: the host's loaders know the width 128 only."""
    from diffusers import AutoencoderKL

    quant = latent_channels == 4 or width != 128
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(width, 2 * width, 4 * width, 4 * width),
        layers_per_block=2,
        latent_channels=latent_channels,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )
    return randomise(network, seed)


def coz_lora(blocks: int, seed: int = 3) -> list[Tensor]:
    """Chain-of-Zoom's SR LoRA: a list [up, down, ...], the last block's context left out."""
    generator = torch.Generator().manual_seed(seed)
    width = 64 * blocks
    shapes = [(6 * width, RANK), (RANK, width)] * (2 * blocks - 1)
    return [torch.randn(shape, generator=generator) * 0.5 for shape in shapes]


def with_coz_lora(
    transformer: "SD3Transformer2DModel", tensors: list[Tensor]
) -> "SD3Transformer2DModel":
    """A copy of the transformer with the LoRA added to its weights."""
    merged = copy.deepcopy(transformer)
    norms = [
        module
        for name, module in merged.named_modules()
        if name.endswith(("norm1.linear", "norm1_context.linear"))
    ][: len(tensors) // 2]
    for norm, up, down in zip(norms, tensors[::2], tensors[1::2], strict=True):
        norm.weight.data += up @ down
    return merged


def with_coz_encoder(autoencoder: "AutoencoderKL", seed: int = 4) -> "AutoencoderKL":
    """A copy whose encoder has Chain-of-Zoom's adapter; its state dict is the .pt file."""
    from peft import LoraConfig

    adapted = copy.deepcopy(autoencoder)
    layers = [
        f"encoder.{name}"
        for name, module in adapted.encoder.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and any(part in name for part in ENCODER_LAYERS)
    ]
    adapted.add_adapter(LoraConfig(r=RANK, target_modules=layers), "default_encoder")
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.03
    return adapted.eval().requires_grad_(False)


def sd3_medium(device: torch.device) -> "SD3Transformer2DModel":
    """SD3-medium's transformer at its real size, 2 billion values, made on the device."""
    from diffusers import SD3Transformer2DModel

    width = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
    config = {**sd3_transformer(1).config, **width}
    with device:
        return SD3Transformer2DModel.from_config(config).eval().requires_grad_(False)


def clip_text(large: bool, device: torch.device) -> "CLIPTextModelWithProjection":
    """CLIP-L in float16 or, if ``large``, CLIP-G: the host knows them by their full size only."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    width, layers, activation = (1280, 32, "gelu") if large else (768, 12, "quick_gelu")
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        projection_dim=width,
        hidden_act=activation,
    )
    with device:
        network = CLIPTextModelWithProjection(config)
    if not large:
        nn.init.eye_(network.text_projection.weight)  # as diffusers makes it for SD3
    return network.half().eval().requires_grad_(False)


def t5_xxl(device: torch.device) -> "T5EncoderModel":
    """T5-XXL's encoder in float16, 4.8 billion values."""
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_ff=10240,
        d_kv=64,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    # Made in float16: the float32 before it would not fit a GPU of 24 GB.
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    try:
        with device:
            return T5EncoderModel(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(usual)


def save_text_encoders(folder: Path) -> Path:
    """SD3's three text encoders, tiny and random, with the real tokenizers and the sampler, as diffusers."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5TokenizerFast,
    )

    tokenizers = host_path() / "comfy"
    clips = [
        CLIPTextModelWithProjection(
            CLIPTextConfig(
                **{"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2},
                **{"num_hidden_layers": 3, "projection_dim": width},
            )
        )
        for width in (8, POOLED_WIDTH - 8)
    ]
    t5 = T5Config(d_model=TEXT_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    StableDiffusion3Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        **{"transformer": None, "vae": None, "text_encoder": clips[0], "text_encoder_2": clips[1]},
        text_encoder_3=T5EncoderModel(t5),
        tokenizer=CLIPTokenizer.from_pretrained(tokenizers / "sd1_tokenizer", model_max_length=77),
        tokenizer_2=CLIPTokenizer.from_pretrained(
            tokenizers / "sd1_tokenizer", pad_token="!", model_max_length=77
        ),
        tokenizer_3=T5TokenizerFast.from_pretrained(tokenizers / "text_encoders/t5_tokenizer"),
    ).save_pretrained(folder)
    return folder
