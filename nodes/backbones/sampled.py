from collections.abc import Callable

from torch import Tensor

from nodes import CLIPTextEncode

from ...coz.text.step_prompts import replace_lone_surrogates
from ...coz.tiles.noise import NoiseField
from ..host.text_encoder import require_clip
from .backbone import Tile, TilePass
from .diffusion import DiffusionBackbone


class SampledDiffusion(DiffusionBackbone):
    """A diffusion backbone that samples from noise, with a negative text."""

    reads_seed = True
    view_padding_pixels = 0
    """Number of pixels by which a backbone may pad the sides of a view, besides the padding for the VAE."""

    def encode(self, text: str) -> list:
        require_clip(self.chosen["clip"])
        return CLIPTextEncode().encode(self.chosen["clip"], replace_lone_surrogates(text))[0]

    def choose_encoder(self, text) -> tuple[str, dict]:
        # ComfyUI's own node refuses lone surrogates. The text behind a link has none.
        return "CLIPTextEncode", {
            "text": replace_lone_surrogates(text) if isinstance(text, str) else text
        }

    def start_pass(self, tile_pass: TilePass) -> None:
        height, width = (
            side + self.view_padding_pixels
            for side in (tile_pass.layout.height, tile_pass.layout.width)
        )
        self.noise = NoiseField(height, width, tile_pass.seed)
        super().start_pass(tile_pass._replace(texts=[*tile_pass.texts, self.chosen["negative"]]))

    def make_noise_cutter(self, tile: Tile) -> Callable[[Tensor, int], Tensor]:
        """Make a function (latent, reduction) -> noise, which cuts a tile's noise out of the noise field.

        reduction: Image pixels along a side of one latent pixel.
        """
        x, y = tile.window.x, tile.window.y
        return lambda latent, reduction: self.noise.cut_window(latent, x, y, reduction)
