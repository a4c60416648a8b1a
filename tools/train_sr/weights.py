"""Read and write SR LoRAs and VAE encoders in the form that CoZ Load SR LoRA reads."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save
from torch import Tensor

from coz.weights.chain_of_zoom import convert_coz_lora, convert_coz_vae_encoder
from coz.weights.lora import StandardKeyWeights, pair_factors
from coz.weights.read import FORMAT, read_weights
from coz.weights.vae import rename_vae_weight

from .checkpoint import write_tensors, write_whole
from .config import TrainingConfig
from .network import GENERATOR, OneStepNetwork, list_modulations
from .sd3 import load_transformer_and_vae

LORA_FILE, ENCODER_FILE = "sr_lora.safetensors", "vae_encoder.safetensors"


def export(network: OneStepNetwork, folder: Path) -> None:
    """Write the generator's LoRA and the whole VAE encoder."""
    write_weights(folder / LORA_FILE, convert_coz_lora(list_factors(network)), network)
    encoder = convert_coz_vae_encoder(network.vae.encoder.state_dict())
    write_weights(folder / ENCODER_FILE, encoder, network)


def write_weights(path: Path, weights: StandardKeyWeights, network: OneStepNetwork) -> None:
    """Write weights under standard keys with the latent convention that they were trained with."""
    entries = weights._asdict() | {"format": FORMAT, "latent_shift": network.latent_shift}
    tensors = {name: tensor.contiguous().cpu() for name, tensor in entries.pop("tensors").items()}
    metadata = {name: str(value) for name, value in entries.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, save(tensors, metadata))


def export_upstream(network: OneStepNetwork, folder: Path, step: int) -> None:
    """Write model_N.pkl and vae_encoder_N.pt as Chain-of-Zoom's training does."""
    factors = [factor.cpu() for factor in list_factors(network)]
    write_tensors(folder / f"model_{step}.pkl", factors)
    encoder = {name: w.half().cpu() for name, w in network.vae.encoder.state_dict().items()}
    write_tensors(folder / f"vae_encoder_{step}.pt", encoder)


def list_factors(network: OneStepNetwork) -> list[Tensor]:
    """List the factors of the generator's LoRA, [up, down, up, down, ...]."""
    factors = [factor.detach() for factor in network.list_parameters(GENERATOR)]
    return [factor for pair in zip(factors[1::2], factors[::2], strict=True) for factor in pair]


def load_network(config: TrainingConfig, device: torch.device) -> OneStepNetwork:
    """Load SD3 with the VAE encoder to start from, without LoRAs."""
    transformer, vae = load_transformer_and_vae(config)
    if config.start_vae_encoder:
        load_vae_encoder(vae, config.start_vae_encoder)
    transformer.to(device)
    vae.to(device)
    return OneStepNetwork(transformer, vae, config.latent_shift, config.checkpointing)


@torch.no_grad()
def load_lora(network: OneStepNetwork, path: Path) -> None:
    """Load an SR LoRA into the generator."""
    weights = read_weights(path)
    if weights.latent_shift not in (None, network.latent_shift):
        raise ValueError(
            f"start_lora: {path.name} was trained with latent_shift {weights.latent_shift}: set it so"
        )
    pairs, alphas = pair_factors(weights.lora)
    for name in list_modulations(network.transformer):
        layer, key = network.transformer.get_submodule(name), f"transformer.{name}"
        if key not in pairs:
            raise ValueError(
                f"start_lora: {path.name} has no {name}: take an SR LoRA of SD3-medium"
            )
        down, up = pairs[key]
        scale = float(alphas.get(f"{key}.alpha", len(down))) / len(down)
        for factors, factor in ((layer.lora_A, down), (layer.lora_B, up * scale)):
            weight = factors[GENERATOR].weight
            if weight.shape != factor.shape:
                raise ValueError(
                    f"start_lora: {path.name} does not fit: its {name} is {tuple(factor.shape)}, not "
                    f"{tuple(weight.shape)}; set rank to {len(down)}"
                )
            weight.copy_(factor)


@torch.no_grad()
def load_vae_encoder(vae: AutoencoderKL, path: Path) -> None:
    """Load a whole VAE encoder into a VAE without adapters."""
    given = read_weights(path).vae
    for name, weight in vae.encoder.state_dict().items():
        found = given.get(rename_vae_weight(f"encoder.{name}"))
        if found is None or found.numel() != weight.numel():
            raise ValueError(
                f"start_vae_encoder: {path.name} does not fit: its {name} is "
                f"{'missing' if found is None else tuple(found.shape)}; take a VAE encoder of SD3"
            )
        weight.copy_(found.view_as(weight))
