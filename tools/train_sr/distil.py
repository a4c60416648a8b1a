"""Train SD3 to a one-step super-resolution model by distribution matching, as Chain-of-Zoom and OSEDiff."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coz.weights.lora import PEFT_DEFAULT_ALPHA

from .config import DistilConfig
from .dataset import CropDataset
from .losses import load_lpips, match_distributions
from .network import (
    GENERATOR,
    REGULARIZER,
    VAE_ENCODER,
    OneStepNetwork,
    list_encoder_layers,
    list_modulations,
)
from .sd3 import load_timesteps
from .task import Backward, Task
from .texts import Batch, Texts
from .weights import export_upstream, load_lora, load_network


class Distillation(Task):
    """Trains generator and VAE encoder towards the base model, and the regularizer on their results."""

    adapters = (GENERATOR, REGULARIZER, VAE_ENCODER)
    averaged = (GENERATOR, VAE_ENCODER)

    def __init__(
        self,
        config: DistilConfig,
        network: OneStepNetwork,
        lpips: nn.Module,
        texts: Texts,
        timesteps: Tensor,
    ) -> None:
        super().__init__(network, lpips, texts)
        self.config, self.timesteps = config, timesteps
        add_distil_loras(network, config.rank, config.seed)

    def compute_gradients(
        self, batch: Batch, rng: torch.Generator, backward: Backward
    ) -> dict[str, Tensor]:
        """Compute the losses of the generator and, on the same latents, of the regularizer."""
        network, weights, text = self.network, self.config.weights, self.texts.embed(batch)
        network.use(GENERATOR)
        latent, image = network.enlarge(batch["low"], *text, rng)
        fixed = latent.detach()
        noised, timestep = self.add_noise(fixed, rng)
        with torch.no_grad():
            with network.using(REGULARIZER):
                fake = network.predict(noised, timestep, *text)
            with network.using():
                real = network.predict(noised, timestep, *text)
        losses = {
            "mse": F.mse_loss(image, batch["high"]),
            "lpips": self.lpips(image, batch["high"]).mean(),
            "vsd": match_distributions(latent, fake, real),
        }
        backward(sum(getattr(weights, name) * loss for name, loss in losses.items()))
        noised, timestep = self.add_noise(fixed, rng)
        with network.using(REGULARIZER):
            losses["regularizer"] = F.mse_loss(network.predict(noised, timestep, *text), fixed)
            backward(weights.regularizer * losses["regularizer"])
        return losses

    def add_noise(self, latent: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mix latents with noise at a random timestep of the sampler, the same for the whole batch."""
        timestep = self.timesteps[torch.randint(len(self.timesteps), (1,), generator=rng)]
        noise = torch.randn(latent.shape, generator=rng).to(latent.device)
        sigma = timestep / 1000
        return (1 - sigma) * latent + sigma * noise, timestep

    def export(self, folder: Path, step: int) -> None:
        super().export(folder, step)
        if self.config.upstream_files:
            export_upstream(self.network, folder, step)


def add_distil_loras(network: OneStepNetwork, rank: int, seed: int) -> None:
    """Add the LoRAs of distillation: generator, regularizer and VAE encoder."""
    layers = list_modulations(network.transformer)
    encoder_layers = list_encoder_layers(network.vae)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.add_lora(REGULARIZER, layers, rank, rank)
        network.add_lora(GENERATOR, layers, rank, rank)
        network.add_lora(VAE_ENCODER, encoder_layers, rank, PEFT_DEFAULT_ALPHA, of_vae=True)


def load_distillation(config: DistilConfig, device: torch.device, *_: CropDataset) -> Distillation:
    """Load the networks of a distillation."""
    lpips, timesteps = load_lpips(config.lpips), load_timesteps(config.model)
    texts = Texts(config, device)
    network = load_network(config, device)
    task = Distillation(config, network, lpips.to(device), texts, timesteps.to(device))
    if config.start_lora:
        load_lora(network, config.start_lora)
    return task
