from comfy_api.latest import io
from torch import Tensor

from ...coz.inversion import LQ_MULTIPLE_PIXELS, SCALE
from ...coz.resample import crop
from ...coz.tiles.plan import find_tile_input
from ..host.images import to_bchw
from ..host.inversion import sharpen_by_inversion
from ..step.invsr_step import (
    make_adaptive_input,
    make_cfg_input,
    make_sampling_steps_input,
    make_start_input,
)
from .backbone import Tile
from .sampled import SampledDiffusion

SAMPLING_INPUTS = ("sampling_steps", "start", "cfg", "adaptive")


class DiffusionInversion(SampledDiffusion):
    name = "diffusion inversion (InvSR)"
    summary = "SD-Turbo with InvSR's noise predictor."
    view_padding_pixels = SCALE * LQ_MULTIPLE_PIXELS

    @classmethod
    def make_inputs(cls, **socket_options) -> list[io.Input]:
        return [
            *super().make_inputs(**socket_options),
            io.String.Input(
                "negative",
                default="",
                multiline=True,
                tooltip="What the image must not show. It has an effect only if cfg is above 1.",
            ),
            make_sampling_steps_input(),
            make_cfg_input(),
            make_start_input(),
            make_adaptive_input(),
        ]

    def add_nodes(self, add_node, i, view, text) -> list:
        return add_node(
            "CoZInvSRStep",
            f"sr_{i}",
            model=self.chosen["model"],
            vae=self.chosen["vae"],
            positive=self.add_encoder(add_node, i, text),
            negative=self.add_encoder(add_node, "negative", self.chosen["negative"]),
            crop=view.crop,
            zoomed=view.zoomed,
            **{key: self.chosen[key] for key in SAMPLING_INPUTS},
            seed=view.seed,
        ).out(0)

    def run(self, tiles: list[Tile], texts: list[str]) -> Tensor:
        # One at a time: the noise of each is cut from its place.
        (tile,), (text,) = tiles, texts
        chosen, zoomed = self.chosen, to_bchw(tile.zoomed)
        box = find_tile_input(self.tile_pass.image, self.tile_pass.layout, tile.window)
        is_whole = all(side == int(side) for side in box)
        return sharpen_by_inversion(
            chosen["model"],
            chosen["vae"],
            self.encoded[text],
            self.encoded[chosen["negative"]],
            crop(self.tile_pass.image, box) if is_whole else zoomed,
            zoomed,
            *(chosen[key] for key in SAMPLING_INPUTS),
            tile.seed,
            self.make_noise_cutter(tile),
        )
