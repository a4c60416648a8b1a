"""Fine-tune an SR LoRA through two zooms, with the five losses of OracleZoom.

The SR LoRA is frozen, and a new LoRA on the attention is trained. What the network made before, what it
makes now and the average of its last steps are one network here, whose adapters take turns.
"""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from coz.resample import resize
from coz.weights.chain_of_zoom import convert_coz_lora
from coz.weights.lora import StandardKeyWeights, pair_factors
from coz.weights.read import read_weights
from coz.weights.vae import rename_vae_weights

from .config import CrossScaleConfig, read_config
from .dataset import CropDataset
from .distil import open_crops
from .loop import make_accelerator, make_generator, move, train
from .losses import load_lpips
from .network import GENERATOR, LAST_TIMESTEP, OneStepNetwork, list_modulations, load_networks
from .score import load_score
from .second_prompts import Texts
from .task import Backward, Batch, Task
from .weights import (
    ENCODER_FILE,
    LORA_FILE,
    list_factors,
    load_lora,
    load_vae_encoder,
    write_weights,
)

ZOOM, TEACHER = "zoom", "teacher"
ATTENTION = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"]
"""The layers of the new LoRA. Source: OracleZoom."""

MIN_GAIN = 1e-3
"""Minimum relative fall of the held-out loss that counts as a gain. Source: OracleZoom."""


class Zoom(NamedTuple):
    latent: Tensor
    image: Tensor
    """(B, 3, H, W) in [-1, 1], clamped."""


class CrossScale(Task):
    """A zoom and a second one into its middle, on whose losses a LoRA is trained."""

    adapters = (ZOOM,)

    def __init__(
        self, config: CrossScaleConfig, held_out: CropDataset, device: torch.device
    ) -> None:
        self.config, self.held_out, self.device = config, held_out, device
        wanted = config.score and config.weights.quality
        self.score = load_score(config.score, device) if wanted else None
        self.lpips = load_lpips(config.lpips).to(device)
        self.network = load_network(config)
        self.network.transformer.to(device)
        self.network.vae.to(device)
        self.texts = Texts(config, device)
        self.embed = self.texts.embed_first
        self.best: dict[str, Tensor] = {}
        self.least, self.without_gain = float("inf"), 0

    @property
    def is_over(self) -> bool:
        return self.without_gain >= self.config.patience

    def compute(self, batch: Batch, rng: torch.Generator, backward: Backward) -> dict[str, Tensor]:
        losses = self.compute_losses(batch, rng)
        backward(self.weigh(losses))
        return losses

    def weigh(self, losses: dict[str, Tensor]) -> Tensor:
        weights = self.config.weights
        return torch.stack([getattr(weights, name) * loss for name, loss in losses.items()]).sum()

    def compute_losses(
        self, batch: Batch, rng: torch.Generator, with_teacher: bool = True
    ) -> dict[str, Tensor]:
        """Zoom twice and compute the losses whose weights are not 0."""
        network, weights, high = self.network, self.config.weights, batch["high"]
        text = self.texts.embed_first(batch)
        network.use(GENERATOR, ZOOM)
        first = self.zoom(network.encode(batch["low"], rng), text)
        view = enlarge_middle(
            first.image if self.config.through_first_zoom else first.image.detach()
        )
        second_text = self.texts.embed_second(batch, first.image, view)
        start = network.encode(view, rng)
        second = self.zoom(start, second_text)
        losses = {}
        if weights.first:
            losses["first"] = self.lpips(first.image, high).mean()
        if weights.second:
            target = cut_middle(high)
            reduced = resize(second.image, *target.shape[-2:]).clamp(-1, 1)
            losses["second"] = self.lpips(reduced, target).mean()
        if self.score:
            losses["quality"] = -self.score(second.image / 2 + 0.5).mean()
        if weights.prior:
            with torch.no_grad(), network.using(GENERATOR):
                prior = self.predict(start, second_text)
            losses["prior"] = F.mse_loss(second.latent, prior)
        if weights.teacher and with_teacher:
            with torch.no_grad(), network.using(GENERATOR, TEACHER):
                taught = self.predict(network.encode(high, rng), text)
            losses["teacher"] = F.mse_loss(first.latent, taught)
        return losses

    def predict(self, latent: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        last = torch.tensor([LAST_TIMESTEP], device=self.device)
        return self.network.predict(latent, last, *text)

    def zoom(self, latent: Tensor, text: tuple[Tensor, Tensor]) -> Zoom:
        latent = self.predict(latent, text)
        return Zoom(latent, self.network.decode(latent).clamp(-1, 1))

    @torch.no_grad()
    def make_views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Zoom with the SR LoRA alone; return the results and their enlarged middles."""
        batch = move(batch, self.device)
        with self.network.using(GENERATOR):
            latent = self.network.encode(batch["low"])
            image = self.zoom(latent, self.texts.embed_first(batch)).image
        return image, enlarge_middle(image)

    @torch.no_grad()
    def finish_step(self, step: int) -> dict[str, float]:
        """Update the teacher, and measure the loss on held-out crops every few steps."""
        if self.config.weights.teacher:
            teacher = self.network.list_parameters(TEACHER)
            for slow, fast in zip(teacher, self.network.list_parameters(ZOOM), strict=True):
                slow.lerp_(fast, 1 - self.config.teacher_decay)
        if step % self.config.check_every:
            return {}
        loss = self.measure()
        if not self.best or self.least - loss > MIN_GAIN * abs(self.least):
            self.least, self.without_gain = loss, 0
            self.best = {name: weight.cpu().clone() for name, weight in self.get_zoom().items()}
        else:
            self.without_gain += 1
        return {"held_out": loss}

    def measure(self) -> float:
        """Return the mean weighted loss on held-out crops, without the teacher's part, as it moves."""
        losses = []
        for i in range(min(self.config.check_crops, len(self.held_out))):
            batch = move(default_collate([self.held_out[i]]), self.device)
            rng = make_generator(self.config.seed, 2, i)
            losses.append(self.weigh(self.compute_losses(batch, rng, with_teacher=False)))
        return torch.stack(losses).mean().item()

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "least": self.least, "without_gain": self.without_gain}

    def set_state(self, state: dict[str, Any]) -> None:
        self.best, self.least = state["best"], state["least"]
        self.without_gain = state["without_gain"]

    def get_zoom(self) -> dict[str, Tensor]:
        """Return the weights of the new LoRA by their names."""
        loras = self.network.get_loras()
        return {name: weight for name, weight in loras.items() if f".{ZOOM}." in name}

    def export(self, folder: Path, step: int) -> None:
        """Write the SR LoRA with the best new LoRA in one file, and the VAE encoder."""
        tensors = dict(convert_coz_lora(list_factors(self.network)).tensors)
        for name, weight in (self.best or self.get_zoom()).items():
            name = f"transformer.{name.replace(f'.{ZOOM}.', '.')}"
            tensors[name] = weight
            tensors[f"{name.partition('.lora_')[0]}.alpha"] = torch.tensor(2.0 * self.config.rank)
        write_weights(
            folder / LORA_FILE, StandardKeyWeights("lora", tensors, None, None), self.network
        )
        encoder = self.network.vae.encoder.state_dict()
        encoder = rename_vae_weights({f"encoder.{name}": w for name, w in encoder.items()})
        weights = StandardKeyWeights("coz vae encoder", encoder, None, None)
        write_weights(folder / ENCODER_FILE, weights, self.network)


def cut_middle(image: Tensor) -> Tensor:
    """Cut a quarter of each side out of the middle of images (B, 3, H, W)."""
    height, width = image.shape[-2:]
    return image[..., height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8]


def enlarge_middle(image: Tensor) -> Tensor:
    """Enlarge the middle of images (B, 3, H, W) in [-1, 1] to their size, as the nodes do."""
    return resize(cut_middle(image), *image.shape[-2:]).clamp(-1, 1)


def load_network(config: CrossScaleConfig) -> OneStepNetwork:
    """Load SD3 with the SR LoRA, and add the LoRAs of cross-scale training.

    Raises:
        ValueError: If a file cannot be used.
    """
    transformer, vae = load_networks(config)
    if config.start_vae_encoder:
        load_vae_encoder(vae, config.start_vae_encoder)
    network = OneStepNetwork(transformer, vae, config.latent_shift, config.checkpointing)
    pairs, _ = pair_factors(read_weights(config.start_lora).lora)
    layers = list_modulations(transformer)
    if strange := pairs.keys() - {f"transformer.{name}" for name in layers}:
        raise ValueError(
            f"start_lora: {config.start_lora.name} has {len(strange)} layers more than an SR LoRA, such as "
            f"{min(strange)}: take model_20001.pkl or the result of distil"
        )
    rank = len(next(iter(pairs.values()))[0])
    add_cross_scale_loras(network, config, rank)
    load_lora(network, config.start_lora)
    return network


def add_cross_scale_loras(
    network: OneStepNetwork, config: CrossScaleConfig, generator_rank: int
) -> None:
    """Add the SR LoRA, which is frozen, the LoRA that is trained, and its average."""
    layers = list_modulations(network.transformer)
    network.add_lora(GENERATOR, layers, generator_rank, generator_rank)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network.add_lora(ZOOM, ATTENTION, config.rank, 2 * config.rank)
    if config.weights.teacher:
        network.add_lora(TEACHER, ATTENTION, config.rank, 2 * config.rank)
        pairs = zip(network.list_parameters(TEACHER), network.list_parameters(ZOOM), strict=True)
        for slow, fast in pairs:
            slow.data.copy_(fast.data)
    network.use(GENERATOR, ZOOM)
    network.set_trained(ZOOM)


def run(path: Path) -> None:
    """Fine-tune as a config says, or continue an unfinished training.

    Raises:
        ValueError: If the config, the data or a model cannot be used, or a loss is not finite.
    """
    # PEFT warns of every adapter after the first.
    warnings.filterwarnings("ignore", "Already found a `peft_config`", UserWarning)
    config = read_config(path, CrossScaleConfig)
    accelerator = make_accelerator(config)
    crops, held_out = open_crops(config), open_crops(config, held_out=True)
    if not len(held_out):
        raise ValueError(
            f"data: {config.data} holds no held-out crops, which say when to stop: prepare it with a larger "
            "--held-out"
        )
    task = CrossScale(config, held_out, accelerator.device)
    if config.vlm and config.second_prompts == "beforehand":
        with accelerator.main_process_first():
            task.texts.write_prompts((crops, held_out), task.make_views)
    train(config, task, crops, held_out, accelerator)
