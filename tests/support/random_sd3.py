"""Random weights of the structure of SD3 and Chain-of-Zoom's files: nothing has to be downloaded."""

import copy

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from peft import LoraConfig
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from .random_weights import randomise

RANK = 4


def sd3_transformer(blocks: int, seed: int = 0) -> SD3Transformer2DModel:
    """SD3-medium has 24 blocks; width and heads follow from their number, as in the host."""
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


def autoencoder(latent_channels: int = 16, width: int = 128, seed: int = 0) -> AutoencoderKL:
    """SD3's VAE, or with 4 channels that of SD1.5: the host's loaders know the width 128 only."""
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
    transformer: SD3Transformer2DModel, tensors: list[Tensor]
) -> SD3Transformer2DModel:
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


def with_coz_encoder(autoencoder: AutoencoderKL, seed: int = 4) -> AutoencoderKL:
    """A copy whose encoder has Chain-of-Zoom's adapter; its state dict is the .pt file."""
    adapted = copy.deepcopy(autoencoder)
    parts = ("conv", "to_q", "to_k", "to_v", "to_out.0")
    layers = [
        name
        for name, module in adapted.named_modules()
        if name.startswith("encoder.")
        and isinstance(module, nn.Conv2d | nn.Linear)
        and any(part in name for part in parts)
    ]
    adapted.add_adapter(LoraConfig(r=RANK, target_modules=layers), "default_encoder")
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = torch.randn(weight.shape, generator=generator) * 0.03
    return adapted.eval().requires_grad_(False)


def sd3_medium(device: torch.device) -> SD3Transformer2DModel:
    """SD3-medium's transformer at its real size, 2 billion values, made on the device."""
    width = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
    config = {**sd3_transformer(1).config, **width}
    with device:
        return SD3Transformer2DModel.from_config(config).eval().requires_grad_(False)


def clip_text(large: bool, device: torch.device) -> CLIPTextModelWithProjection:
    """CLIP-L in float16 or, if ``large``, CLIP-G: the host knows them by their full size only."""
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


def t5_xxl(device: torch.device) -> T5EncoderModel:
    """T5-XXL's encoder in float16, 4.8 billion values."""
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
