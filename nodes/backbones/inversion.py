from comfy_api.latest import io
from torch import Tensor

from ...coz.inversion import LQ_MULTIPLE_PIXELS, SCALE
from ...coz.resample import crop
from ...coz.tiles.plan import find_tile_source
from ..host.images import to_bchw
from ..host.inversion import invert
from ..step.invsr_step import adaptive_input, cfg_input, sampling_steps_input, start_input
from .backbone import Tile
from .sampled import SampledDiffusion

SAMPLING_INPUTS = ("sampling_steps", "start", "cfg", "adaptive")


class DiffusionInversion(SampledDiffusion):
    name = "diffusion inversion (InvSR)"
    summary = "SD-Turbo with InvSR's noise predictor."
    view_padding_pixels = SCALE * LQ_MULTIPLE_PIXELS

    @classmethod
    def inputs(cls, **socket_options) -> list[io.Input]:
        return [
            *super().inputs(**socket_options),
            io.String.Input(
                "negative",
                default="",
                multiline=True,
                tooltip="What the image must not show. It has an effect only if cfg is above 1.",
            ),
            sampling_steps_input(),
            cfg_input(),
            start_input(),
            adaptive_input(),
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
        box = find_tile_source(self.tiles.picture, self.tiles.layout, tile.window)
        is_whole = all(side == int(side) for side in box)
        return invert(
            chosen["model"],
            chosen["vae"],
            self.encoded[text],
            self.encoded[chosen["negative"]],
            crop(self.tiles.picture, box) if is_whole else zoomed,
            zoomed,
            *(chosen[key] for key in SAMPLING_INPUTS),
            tile.seed,
            self.choose_noise(tile),
        )
