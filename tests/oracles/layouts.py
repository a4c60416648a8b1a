"""Names and shapes of the weights of networks of diffusers and transformers."""

import torch

from tests.support.random_qwen import qwen25vl
from tests.support.random_sd3 import autoencoder, sd3_transformer
from tests.support.random_weights import list_shapes
from tests.support.small_models import WIDTH

from .invsr import make_networks
from .sd3 import WIDER

AUTOENCODERS = ((16, 128), (16, WIDTH), (16, WIDER), (4, WIDTH))


def make_clip_l():
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    with torch.device("meta"):
        return CLIPTextModel(config)


def record() -> dict[str, dict[str, list[int]]]:
    vae, unet = make_networks()
    networks = {
        "sd3_transformer": sd3_transformer(2),
        **{f"autoencoder_{c}_{width}": autoencoder(c, width) for c, width in AUTOENCODERS},
        "qwen25vl": qwen25vl(),
        "clip_l": make_clip_l(),
        "invsr_vae": vae,
        "invsr_unet": unet,
    }
    return {name: list_shapes(network) for name, network in networks.items()}
