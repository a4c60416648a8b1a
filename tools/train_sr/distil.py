"""Train SD3 to a one-step super-resolution model by distribution matching, as Chain-of-Zoom and OSEDiff."""

import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import DistilConfig, read_config
from .dataset import CropDataset
from .loop import make_accelerator, train
from .losses import load_lpips, match_distributions
from .network import (
    GENERATOR,
    REGULARIZER,
    VAE_ENCODER,
    OneStepNetwork,
    add_distil_loras,
    load_networks,
    load_timesteps,
)
from .task import Backward, Batch, Task
from .texts import load_text_encoders
from .weights import export_upstream, load_lora, load_vae_encoder


class Distillation(Task):
    """Generator, regularizer and VAE encoder learn by turns; the base model is their measure."""

    adapters = (GENERATOR, REGULARIZER, VAE_ENCODER)
    averaged = (GENERATOR, VAE_ENCODER)

    def __init__(self, config: DistilConfig, device: torch.device) -> None:
        self.config = config
        self.lpips = load_lpips(config.lpips).to(device)
        self.timesteps = load_timesteps(config.model).to(device)
        self.encode = None if config.text_cached else load_text_encoders(config.model)
        transformer, vae = load_networks(config)
        if config.start_vae_encoder:
            load_vae_encoder(vae, config.start_vae_encoder)
        self.network = OneStepNetwork(transformer, vae, config.latent_shift, config.checkpointing)
        add_distil_loras(self.network, config.rank, config.seed)
        if config.start_lora:
            load_lora(self.network, config.start_lora)
        transformer.to(device)
        vae.to(device)

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the text embeddings of a batch, cached or encoded now."""
        if self.encode:
            # Copies, because tensors made in inference mode cannot be saved for backward.
            return tuple(tensor.clone() for tensor in self.encode(batch["prompt"]))
        return batch["text"], batch["pooled"]

    def compute(self, batch: Batch, rng: torch.Generator, backward: Backward) -> dict[str, Tensor]:
        """Compute the losses of the generator and, on the same latents, of the regularizer."""
        network, weights, text = self.network, self.config.weights, self.embed(batch)
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


def run(path: Path) -> None:
    """Distil as a config says, or continue an unfinished training.

    Raises:
        ValueError: If the config, the data or a model cannot be used, or a loss is not finite.
    """
    # PEFT warns of every adapter after the first.
    warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
    config = read_config(path, DistilConfig)
    accelerator = make_accelerator(config)
    crops = open_crops(config), open_crops(config, held_out=True)
    train(config, Distillation(config, accelerator.device), *crops, accelerator)


def open_crops(config: DistilConfig, held_out: bool = False) -> CropDataset:
    """Open the crops of a config.

    Raises:
        ValueError: If they lack the text embeddings that the config wants.
    """
    data = CropDataset(
        config.data, seed=config.seed, degradation=config.degradation, held_out=held_out
    )
    if config.text_cached and not data.has_texts:
        raise ValueError(
            f"text_cached: {config.data} holds no text embeddings: prepare it again with --text-encoders, or "
            "set text_cached to false"
        )
    data.has_texts = config.text_cached
    return data
