"""SD3 as a one-step super-resolution network: one transformer whose LoRAs take turns.

Distribution matching needs the generator, the regularizer and the frozen base. They are one network here,
with PEFT's adapters switched on and off. PEFT switches more than one expects: see `OneStepNetwork.use`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import AutoencoderKL, SD3Transformer2DModel
from diffusers.models.normalization import AdaLayerNormZero
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from coz.latent import LatentShift

GENERATOR = "gen"
REGULARIZER = "reg"
VAE_ENCODER = "default_encoder"
"""Name of the VAE's adapter in Chain-of-Zoom's files."""

ONE_STEP_TIMESTEP = 1000.0
"""The timestep of the only step. Its sigma is 1, which means pure noise, but the input has no noise."""


class OneStepNetwork:
    """An SD3 transformer with adapters, and its VAE.

    Latents (B, 16, h, w) are in the transformer's scale, images (B, 3, 8h, 8w) in [-1, 1]; both are
    float32. ``text`` is (B, tokens, 4096) and ``pooled`` (B, 2048). The given networks are changed: they
    are frozen.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        vae: AutoencoderKL,
        latent_shift: LatentShift = "reference",
        checkpointing: bool = True,
    ) -> None:
        self.transformer = transformer.requires_grad_(False)
        self.vae = vae.requires_grad_(False)
        self.latent_shift = latent_shift
        self.dtype = transformer.dtype  # read now, as adapters change what the property says
        self.active: tuple[str, ...] = ()
        self.trained: set[str] = set()
        if checkpointing:
            transformer.enable_gradient_checkpointing(self._checkpoint)
            vae.enable_gradient_checkpointing()

    def add_lora(
        self, name: str, layers: list[str], rank: int, alpha: float, of_vae: bool = False
    ) -> None:
        """Add a LoRA that is trained, and make it the only active LoRA of its network."""
        network = self.vae if of_vae else self.transformer
        shape = {"r": rank, "lora_alpha": alpha, "target_modules": layers}
        network.add_adapter(LoraConfig(**shape, init_lora_weights="gaussian"), name)
        # AdamW's steps are smaller than bfloat16 resolves. Each LoRA is cast by its name, as diffusers'
        # cast_training_params would leave out those whose gradients the next add_adapter turns off.
        for parameter in self.list_parameters(name):
            parameter.data = parameter.data.float()
        if not of_vae:
            self.active = (name,)
        self.set_trained(*self.trained, name)

    def list_parameters(self, *names: str) -> list[nn.Parameter]:
        """List the parameters of adapters: for each layer A, then B."""
        return [p for n, p in self._iterate_parameters() if any(f".{name}." in n for name in names)]

    def set_trained(self, *names: str) -> None:
        """Choose the adapters that get gradients, whether they are active or not."""
        self.trained = set(names)
        for name, parameter in self._iterate_parameters():
            parameter.requires_grad_(any(f".{adapter}." in name for adapter in names))

    def get_loras(self) -> dict[str, Tensor]:
        """Return the weights of all LoRAs by their names."""
        return {name: p.detach() for name, p in self._iterate_parameters() if ".lora_" in name}

    @torch.no_grad()
    def set_loras(self, weights: dict[str, Tensor]) -> None:
        """Set the weights of all LoRAs to those of `get_loras`."""
        for name, weight in self.get_loras().items():
            weight.copy_(weights[name])

    def use(self, *names: str) -> None:
        """Make these the active adapters of the transformer; none: the base.

        PEFT turns gradients on for all active adapters and off for the others. A loss whose adapter is off
        at backward loses its gradient without an error, and a frozen adapter that is active would be
        trained. So gradients are set again after each switch.
        """
        if names == self.active:
            return
        if names:
            self.transformer.enable_adapters()
            self.transformer.set_adapter(list(names))
        else:
            self.transformer.disable_adapters()
        self.active = names
        self.set_trained(*self.trained)

    @contextmanager
    def using(self, *names: str) -> Iterator[None]:
        """Make these the active adapters for a block of code."""
        before = self.active
        self.use(*names)
        try:
            yield
        finally:
            self.use(*before)

    def encode(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode images as a sample if there is a ``generator``, else as the mean, as ComfyUI does."""
        posterior = self.vae.encode(image.to(self.dtype)).latent_dist
        mean = posterior.mean.float()
        if generator:
            noise = torch.randn(mean.shape, generator=generator)
            mean = mean + posterior.std.float() * noise.to(mean.device)
        config = self.vae.config
        shift = config.shift_factor if self.latent_shift == "symmetric" else 0.0
        return (mean - shift) * config.scaling_factor

    def decode(self, latent: Tensor) -> Tensor:
        """Decode latents; the result may exceed [-1, 1]."""
        config = self.vae.config
        latent = latent / config.scaling_factor + config.shift_factor
        return self.vae.decode(latent.to(self.dtype)).sample.float()

    def predict(self, latent: Tensor, timestep: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        """Predict the clean latent with the active adapters; ``timestep`` is (1,) or (B,), 0 to 1000."""
        velocity = self.transformer(
            latent.to(self.dtype),
            encoder_hidden_states=text.to(self.dtype),
            pooled_projections=pooled.to(self.dtype),
            timestep=timestep.expand(len(latent)),
        ).sample.float()
        return latent - timestep.view(-1, 1, 1, 1) / 1000 * velocity

    def predict_in_one_step(self, latent: Tensor, text: Tensor, pooled: Tensor) -> Tensor:
        """Predict the clean latent of a low-resolution image's latent."""
        return self.predict(latent, latent.new_tensor([ONE_STEP_TIMESTEP]), text, pooled)

    def enlarge(
        self, image: Tensor, text: Tensor, pooled: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Enlarge images with the active adapters; return the clean latents and the decoded images."""
        latent = self.predict_in_one_step(self.encode(image, generator), text, pooled)
        return latent, self.decode(latent)

    def _checkpoint(self, block: nn.Module, *args):
        """Run a block without keeping its activations; backward runs it again with the same adapters."""
        names = self.active

        def run(*args):
            with self.using(*names):
                return block(*args)

        return checkpoint(run, *args, use_reentrant=False)

    def _iterate_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.transformer.named_parameters()
        yield from self.vae.named_parameters()


def list_modulations(transformer: SD3Transformer2DModel) -> list[str]:
    """List the layers of Chain-of-Zoom's SR LoRA in the order of its file.

    They are found by their class: the context norm of the last block has the same name as the others, but
    is an AdaLayerNormContinuous.
    """
    norms = transformer.named_modules()
    return [f"{name}.linear" for name, norm in norms if isinstance(norm, AdaLayerNormZero)]


def list_encoder_layers(vae: AutoencoderKL) -> list[str]:
    """List the layers of Chain-of-Zoom's VAE LoRA: all convolutions and attention matrices of the encoder."""
    return [
        name
        for name, layer in vae.named_modules()
        if name.startswith("encoder.") and isinstance(layer, nn.Conv2d | nn.Linear)
    ]
