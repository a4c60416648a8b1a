from comfy_api.latest import io
from torch import Tensor

from ...coz.tiles.grid import join_batch
from ..host.text_encoder import can_join_conditionings, join_conditionings
from ..step.encode_prompt import T5_TOKENS, CoZEncodePrompt
from ..step.sr_step import CoZSRStep, make_latent_shift_input
from .backbone import Tile, TilePass
from .diffusion import DiffusionBackbone

TRAINED_SCALE = 4

MAX_GROUP_PIXELS = 1024 * 1024
"""Maximum number of pixels that are sharpened at once: one image of SD3's native size."""


class OneStepDiffusion(DiffusionBackbone):
    name = "one-step diffusion"
    summary = "SD3-medium with the Chain-of-Zoom LoRA."

    @classmethod
    def make_inputs(cls, **socket_options) -> list[io.Input]:
        return [*super().make_inputs(**socket_options), make_latent_shift_input()]

    def write_untrained_scale_notice(self, scale: float) -> str:
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

    def start_pass(self, tile_pass: TilePass) -> None:
        super().start_pass(tile_pass)
        self.can_join = can_join_conditionings(list(self.encoded.values()))

    def choose_group_size(self, window) -> int:
        return max(1, MAX_GROUP_PIXELS // int(window.width * window.height)) if self.can_join else 1

    def run(self, tiles: list[Tile], texts: list[str]) -> Tensor:
        model, vae, latent_shift = (self.chosen[key] for key in ("model", "vae", "latent_shift"))
        positive = join_conditionings([self.encoded[text] for text in texts])
        zoomed = join_batch([tile.zoomed for tile in tiles])
        return CoZSRStep.execute(model, vae, positive, zoomed, latent_shift)[0]
