"""Fine-tune an SR LoRA through two zooms, with the five losses of OracleZoom.

The SR LoRA is frozen, and a new LoRA on the attention is trained. The network before the training, the present
one and the average over its last steps are one network here, whose adapters take turns.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import reduce, send_to_device
from torch import Tensor, nn
from torch.utils.data import default_collate

from coz.resample import resize
from coz.weights.chain_of_zoom import convert_coz_lora
from coz.weights.lora import StandardKeyWeights, pair_factors
from coz.weights.read import read_weights
from coz.weights.vae import rename_vae_weights

from .config import CrossScaleConfig
from .dataset import CropDataset
from .loop import make_generator
from .losses import load_lpips
from .network import GENERATOR, OneStepNetwork, list_modulations
from .score import Score, load_score
from .second_prompts import TextsOfTwoZooms
from .task import Backward, Task
from .texts import Batch, Embeddings
from .weights import ENCODER_FILE, LORA_FILE, list_factors, load_lora, load_network, write_weights

STUDENT, TEACHER = "zoom", "teacher"
"""Names of the new LoRA and of its average, also in checkpoints."""

ATTENTION = ["to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj"]
"""The layers of the new LoRA. Source: OracleZoom."""

MIN_GAIN = 1e-3
"""Minimum relative fall of the held-out loss that counts as a gain. Source: OracleZoom."""


class CrossScale(Task):
    """Train a LoRA on the losses of a zoom and of a second zoom into its middle."""

    adapters = (STUDENT,)

    def __init__(
        self,
        config: CrossScaleConfig,
        network: OneStepNetwork,
        lpips: nn.Module,
        texts: TextsOfTwoZooms,
        generator_rank: int,
        score: Score | None = None,
        held_out: CropDataset | None = None,
    ) -> None:
        super().__init__(network, lpips, texts)
        self.config, self.score, self.held_out = config, score, held_out
        self.best: dict[str, Tensor] = {}
        self.least, self.without_gain = float("inf"), 0
        add_cross_scale_loras(network, config, generator_rank)

    @property
    def is_over(self) -> bool:
        return self.without_gain >= self.config.patience

    def compute_gradients(
        self, batch: Batch, rng: torch.Generator, backward: Backward
    ) -> dict[str, Tensor]:
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
        text = self.texts.embed(batch)
        network.use(GENERATOR, STUDENT)
        latent, image = self.zoom(network.encode(batch["low"], rng), text)
        view = enlarge_middle(image if self.config.through_first_zoom else image.detach())
        second_text = self.texts.embed_second(batch, image, view)
        start = network.encode(view, rng)
        second_latent, second_image = self.zoom(start, second_text)
        losses = {}
        if weights.first:
            losses["first"] = self.lpips(image, high).mean()
        if weights.second:
            target = cut_middle(high)
            reduced = resize(second_image, *target.shape[-2:]).clamp(-1, 1)
            losses["second"] = self.lpips(reduced, target).mean()
        if self.score:
            losses["quality"] = -self.score(second_image / 2 + 0.5).mean()
        if weights.prior:
            with torch.no_grad(), network.using(GENERATOR):
                prior = network.predict_in_one_step(start, *second_text)
            losses["prior"] = F.mse_loss(second_latent, prior)
        if weights.teacher and with_teacher:
            with torch.no_grad(), network.using(GENERATOR, TEACHER):
                taught = network.predict_in_one_step(network.encode(high, rng), *text)
            losses["teacher"] = F.mse_loss(latent, taught)
        return losses

    def zoom(self, latent: Tensor, text: Embeddings) -> tuple[Tensor, Tensor]:
        """Return the clean latents, and the images (B, 3, H, W) clamped to [-1, 1]."""
        latent = self.network.predict_in_one_step(latent, *text)
        return latent, self.network.decode(latent).clamp(-1, 1)

    @torch.no_grad()
    def make_views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Zoom with the SR LoRA alone; return the results and their enlarged middles."""
        batch = send_to_device(batch, self.texts.device)
        with self.network.using(GENERATOR):
            _, image = self.zoom(self.network.encode(batch["low"]), self.texts.embed(batch))
        return image, enlarge_middle(image)

    @torch.no_grad()
    def finish_step(self, step: int) -> dict[str, float]:
        """Update the teacher, and measure the loss on held-out crops every few steps."""
        if self.config.weights.teacher:
            teacher = self.network.list_parameters(TEACHER)
            for slow, fast in zip(teacher, self.network.list_parameters(STUDENT), strict=True):
                slow.lerp_(fast, 1 - self.config.teacher_decay)
        if step % self.config.check_every:
            return {}
        loss = self.measure()
        if not self.best or self.least - loss > MIN_GAIN * abs(self.least):
            self.least, self.without_gain = loss, 0
            self.best = {name: weight.cpu().clone() for name, weight in self.get_student().items()}
        else:
            self.without_gain += 1
        return {"held_out": loss}

    def measure(self) -> float:
        """Return the mean weighted loss on held-out crops.

        The teacher's loss is left out, because the teacher changes. Each process measures some crops, and
        all get the same result, so that they end together.
        """
        state, device = PartialState(), self.texts.device
        count = min(self.config.check_crops, len(self.held_out))
        total = torch.zeros((), device=device)
        for i in range(state.process_index, count, state.num_processes):
            batch = send_to_device(default_collate([self.held_out[i]]), device)
            rng = make_generator(self.config.seed, 2, i)
            total += self.weigh(self.compute_losses(batch, rng, with_teacher=False))
        return reduce(total, "sum").item() / count

    def get_state(self) -> dict[str, Any]:
        return {"best": self.best, "least": self.least, "without_gain": self.without_gain}

    def set_state(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def get_student(self) -> dict[str, Tensor]:
        """Return the weights of the new LoRA by their names."""
        loras = self.network.get_loras()
        return {name: weight for name, weight in loras.items() if f".{STUDENT}." in name}

    def export(self, folder: Path, step: int) -> None:
        """Write the SR LoRA with the best new LoRA in one file, and the VAE encoder."""
        tensors = dict(convert_coz_lora(list_factors(self.network)).tensors)
        for name, weight in (self.best or self.get_student()).items():
            name = f"transformer.{name.replace(f'.{STUDENT}.', '.')}"
            tensors[name] = weight
            tensors[f"{name.partition('.lora_')[0]}.alpha"] = torch.tensor(2.0 * self.config.rank)
        weights = StandardKeyWeights("lora", tensors, None, None)
        write_weights(folder / LORA_FILE, weights, self.network)
        encoder = self.network.vae.encoder.state_dict(prefix="encoder.")
        weights = StandardKeyWeights("coz vae encoder", rename_vae_weights(encoder), None, None)
        write_weights(folder / ENCODER_FILE, weights, self.network)


def cut_middle(image: Tensor) -> Tensor:
    """Cut the middle out of images (B, 3, H, W), with a quarter of their width and height."""
    height, width = image.shape[-2:]
    return image[..., height * 3 // 8 : height * 5 // 8, width * 3 // 8 : width * 5 // 8]


def enlarge_middle(image: Tensor) -> Tensor:
    """Enlarge the middle of images (B, 3, H, W) in [-1, 1] to their size, as the nodes do."""
    return resize(cut_middle(image), *image.shape[-2:]).clamp(-1, 1)


def add_cross_scale_loras(network: OneStepNetwork, config: CrossScaleConfig, rank: int) -> None:
    """Add the frozen SR LoRA, the LoRA that is trained, and its average."""
    layers = list_modulations(network.transformer)
    network.add_lora(GENERATOR, layers, rank, rank)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network.add_lora(STUDENT, ATTENTION, config.rank, 2 * config.rank)
    if config.weights.teacher:
        network.add_lora(TEACHER, ATTENTION, config.rank, 2 * config.rank)
        pairs = zip(network.list_parameters(TEACHER), network.list_parameters(STUDENT), strict=True)
        for slow, fast in pairs:
            slow.data.copy_(fast.data)
    network.use(GENERATOR, STUDENT)
    network.set_trained(STUDENT)


def load_cross_scale(
    config: CrossScaleConfig, device: torch.device, crops: CropDataset, held_out: CropDataset
) -> CrossScale:
    """Load the networks of a training through two zooms, and write the prompts that it needs beforehand."""
    if not len(held_out):
        raise ValueError(
            f"data: {config.data} holds no held-out crops, which say when to stop: prepare it with a larger "
            "--held-out"
        )
    score = load_score(config.score, device) if config.score and config.weights.quality else None
    lpips = load_lpips(config.lpips).to(device)
    network = load_network(config, device)
    pairs, _ = pair_factors(read_weights(config.start_lora).lora)
    layers = {f"transformer.{name}" for name in list_modulations(network.transformer)}
    if strange := pairs.keys() - layers:
        raise ValueError(
            f"start_lora: {config.start_lora.name} has {len(strange)} layers more than an SR LoRA, such as "
            f"{min(strange)}: take model_20001.pkl or the result of distil"
        )
    rank = len(next(iter(pairs.values()))[0])
    texts = TextsOfTwoZooms(config, device)
    task = CrossScale(config, network, lpips, texts, rank, score, held_out)
    load_lora(network, config.start_lora)
    if config.vlm and config.second_prompts == "beforehand":
        with PartialState().main_process_first():
            texts.write_prompts((crops, held_out), task.make_views)
    return task
