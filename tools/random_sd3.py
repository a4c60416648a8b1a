"""Random weights of the structure of SD3 and Chain-of-Zoom's files: nothing has to be downloaded."""

import copy

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from peft import LoraConfig
from torch import Tensor, nn

RANK = 4


def _randomised(network: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for name, weight in network.named_parameters():
        scale = 0.02 if weight.ndim == 1 else 0.7 * weight[0].numel() ** -0.5
        noise = torch.randn(weight.shape, generator=generator) * scale
        # Around 1 where it multiplies, else deep stacks of norms end in nothing.
        weight.data = noise + (weight.ndim == 1 and "norm" in name and name.endswith("weight"))
    return network.eval().requires_grad_(False)


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
    return _randomised(network, seed)


def autoencoder(latent_channels: int = 16, seed: int = 0) -> AutoencoderKL:
    """SD3's VAE, or with 4 channels that of SD1.5: the host knows them by their full width only."""
    quant = latent_channels == 4
    network = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=latent_channels,
        use_quant_conv=quant,
        use_post_quant_conv=quant,
    )
    return _randomised(network, seed)


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
