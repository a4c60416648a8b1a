"""Configs of the SR trainings: YAML files whose keys and values pydantic checks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tools.train_grpo.config import ConfigPath, PositiveInt, Section

Weight = Annotated[float, Field(ge=0)]


class TrainingConfig(Section):
    """The keys that all trainings share."""

    data: ConfigPath
    """The folder that `prepare` made."""
    out: ConfigPath
    model: str = "stabilityai/stable-diffusion-3-medium-diffusers"
    """The name of SD3-medium on Hugging Face or a folder with it, in the layout of diffusers."""
    vae: ConfigPath | None = None
    """A folder with another VAE in the layout of diffusers; by default it is the model's."""
    start_lora: ConfigPath | None = None
    """An SR LoRA to start from: an earlier result, or model_20001.pkl of Chain-of-Zoom."""
    start_vae_encoder: ConfigPath | None = None
    """The VAE encoder that belongs to it."""
    lpips: ConfigPath
    """torchvision's VGG16 (vgg16-397923af.pth), for the loss LPIPS. It is never downloaded."""
    latent_shift: Literal["reference", "symmetric"] = "reference"
    """How images become latents. "reference" (no shift on encode, shift on decode) is how the nodes and
    the authors' inference do it; the authors trained with "symmetric"."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Precision of the frozen weights. LoRAs, losses and optimizers are float32."""
    checkpointing: bool = True
    """Compute the activations of transformer and VAE again for the gradients, to save memory."""
    batch: PositiveInt = 1
    accumulation: PositiveInt = 4
    """Number of batches of a step. A step sees batch x accumulation crops in each process."""
    text_cached: bool = False
    """Take the text embeddings that `prepare` stored, and do not load the text encoders for training."""
    steps: PositiveInt
    seed: Annotated[int, Field(ge=0)] = 123
    rank: PositiveInt = 4
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    workers: Annotated[int, Field(ge=0)] = 2
    """Number of processes that load crops."""
    save_every: PositiveInt = 500
    """Steps between two checkpoints."""
    preview_every: Annotated[int, Field(ge=0)] = 500
    """Steps between two previews; 0 for none. A preview zooms into the first three held-out crops."""
    preview_zooms: Annotated[int, Field(ge=1, le=8)] = 2
    """Number of 4x steps of a preview."""


class Weights(Section):
    """Weights of the losses, by default those of Chain-of-Zoom's training."""

    mse: Weight = 1.0
    lpips: Weight = 2.0
    vsd: Weight = 1.0
    regularizer: Weight = 1.0


class DistilConfig(TrainingConfig):
    """The config of `distil`."""

    steps: PositiveInt = 20_000
    degradation: Literal["real-esrgan", "4x"] = "real-esrgan"
    """How low-resolution crops are made: at random as for Real-ESRGAN, or only reduced."""
    weights: Weights = Weights()
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of an average of the LoRAs, which is then exported in their place; 0 for none."""
    upstream_files: bool = False
    """Also write model_N.pkl and vae_encoder_N.pt as Chain-of-Zoom's training does."""

    @model_validator(mode="after")
    def _check(self) -> "DistilConfig":
        if self.upstream_files and self.latent_shift != "reference":
            raise ValueError(
                "upstream_files: a .pkl cannot say that it needs latent_shift symmetric, and is read as "
                "reference: leave it out, or train with latent_shift reference"
            )
        return self


class CrossScaleWeights(Section):
    """Weights of the losses of two zooms, by default those of OracleZoom; 0 leaves a loss out."""

    first: Weight = 1.0
    """A: LPIPS of the first zoom and the target."""
    second: Weight = 1.0
    """B: LPIPS of the second zoom, reduced to the size of its view, and the middle of the target."""
    quality: Weight = 0.4
    """C: minus the score of the second zoom."""
    prior: Weight = 8.0
    """D: squared distance of the second zoom's latent from what the SR LoRA alone makes of its view."""
    teacher: Weight = 0.1
    """E: squared distance of the first zoom's latent from what the averaged LoRA makes of the target."""


class CrossScaleConfig(TrainingConfig):
    """The config of `cross-scale`."""

    start_lora: ConfigPath
    """The SR LoRA that is fine-tuned: a result of distil, or model_20001.pkl of Chain-of-Zoom."""
    steps: PositiveInt = 10_000
    rank: PositiveInt = 16
    degradation: Literal["4x"] = "4x"
    weights: CrossScaleWeights = CrossScaleWeights()
    score: str = ""
    """A module:function that scores images. Without it the loss quality is left out."""
    through_first_zoom: bool = True
    """Whether the losses of the second zoom train the first zoom too."""
    teacher_decay: Annotated[float, Field(ge=0, lt=1)] = 0.95
    vlm: str = ""
    """The name or folder of a VLM of transformers that writes the second zoom's prompts. Without one they
    are those of the first."""
    second_prompts: Literal["beforehand", "live"] = "beforehand"
    """Whether the VLM writes them once, from the results of the SR LoRA alone, or in each step."""
    check_every: PositiveInt = 100
    """Steps between two measurements of the loss on held-out crops."""
    check_crops: PositiveInt = 64
    """Number of held-out crops that are measured."""
    patience: PositiveInt = 8
    """The training ends after this many measurements in a row without a gain."""

    @model_validator(mode="after")
    def _check(self) -> "CrossScaleConfig":
        if not (self.weights.first or self.weights.second or (self.weights.quality and self.score)):
            raise ValueError(
                "weights: one of first, second and quality, which needs a score, must be above 0: prior "
                "and teacher alone do not show whether the result gets better"
            )
        if self.text_cached and self.vlm and self.second_prompts == "live":
            raise ValueError(
                "text_cached: prompts that are written in each step are not stored: set text_cached to "
                "false, or second_prompts to beforehand"
            )
        return self
