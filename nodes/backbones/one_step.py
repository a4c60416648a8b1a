from comfy_api.latest import io
from torch import Tensor

from ..step.encode_prompt import T5_TOKENS, CoZEncodePrompt
from ..step.sr_step import CoZSRStep, latent_shift_input
from .backbone import Tile
from .diffusion import DiffusionBackbone

TRAINED_SCALE = 4


class OneStepDiffusion(DiffusionBackbone):
    name = "one-step diffusion"
    summary = "SD3-medium with the Chain-of-Zoom LoRA."

    @classmethod
    def inputs(cls, **socket_options) -> list[io.Input]:
        return [*super().inputs(**socket_options), latent_shift_input()]

    def describe_scale(self, scale: float) -> str:
        if scale == TRAINED_SCALE:
            return ""
        return (
            f"scale is {scale:g}, but the Chain-of-Zoom LoRA and similar models are trained for "
            f"{TRAINED_SCALE}x"
        )

    def encode(self, text: str) -> list:
        return CoZEncodePrompt.execute(self.chosen["clip"], text)[0]

    def choose_encoder(self, text) -> tuple[str, dict]:
        return "CoZEncodePrompt", {"prompt": text, "t5_tokens": T5_TOKENS}

    def add_nodes(self, add_node, i, view, text) -> list:
        return add_node(
            "CoZSRStep",
            f"sr_{i}",
            model=self.chosen["model"],
            vae=self.chosen["vae"],
            positive=self.add_encoder(add_node, i, text),
            image=view.zoomed,
            latent_shift=self.chosen["latent_shift"],
        ).out(0)

    def run(self, tile: Tile, text: str) -> Tensor:
        model, vae, latent_shift = (self.chosen[key] for key in ("model", "vae", "latent_shift"))
        return CoZSRStep.execute(model, vae, self.encoded[text], tile.zoomed, latent_shift)[0]
