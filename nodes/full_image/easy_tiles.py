"""Tiles of Full-Image SR without detail, which the backbone does not need to sharpen."""

from comfy_api.latest import io
from torch import Tensor

from ...coz.resample import resize
from ...coz.tiles.complexity import find_easy_tiles, rate_complexity
from ...coz.tiles.layout import TileLayout
from ..backbones.backbone import Backbone
from ..backbones.plain_enlargement import PlainEnlargement
from ..backbones.upscale_model import UpscaleModel
from ..host.images import to_bchw, to_image
from ..host.options import require_choice

OFF, ENLARGE, BUILT_IN = EASY_TILES = ["off", "enlarge", "built-in model"]

BUILT_IN_FILE = "coz_lite_x4.safetensors"

DEFAULT_EASY_BELOW = 0.2
"""It is above the complexity of a photographed sky with noise, and below that of the softest edge."""


def make_easy_tiles_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "easy_tiles",
            options=EASY_TILES,
            default=OFF,
            optional=True,
            tooltip="What diffusion backbones do with easy tiles: those without detail, such as a clear "
            "sky. off: sharpen them like all others. enlarge: enlarge them with bicubic. built-in model: "
            "enlarge them with coz_lite_x4. Unless it is off, easy tiles get no text and take almost no "
            "time.",
        ),
        io.Float.Input(
            "easy_below",
            default=DEFAULT_EASY_BELOW,
            min=0.0,
            max=1.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip="Used with easy_tiles: a tile is easy if its complexity is below this value "
            'everywhere. 0: no tile is easy. 1: all tiles are easy. The output "complexity" shows the '
            "complexity of each place as a gray map.",
        ),
    ]


def plan_easy_tiles(
    image: Tensor, layouts: list[TileLayout], easy_tiles: str, limit: float, backbone: Backbone
) -> list[list[int]]:
    """Return the indices of the easy tiles of each pass. The image is rated before the first pass."""
    require_choice("easy_tiles", easy_tiles, EASY_TILES)
    if easy_tiles == OFF or backbone.enlarges_input:
        return [[] for _ in layouts]
    ratings = rate_complexity(image)
    return [find_easy_tiles(ratings, layout, limit) for layout in layouts]


def write_ignored_easy_tiles_notice(easy_tiles: str, backbone: Backbone) -> str:
    """Return a notice if ``easy_tiles`` has no effect with the backbone, otherwise ""."""
    if easy_tiles == OFF or not backbone.enlarges_input:
        return ""
    return f'easy_tiles has no effect with the backbone "{backbone.name}"'


def make_easy_backbone(easy_model) -> Backbone:
    """Make the backbone for easy tiles; ``easy_model`` is None for plain enlargement."""
    if easy_model is None:
        return PlainEnlargement({})
    return UpscaleModel({"upscale_model": easy_model, "resampling": "bicubic"})


class CoZComplexityMap(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="CoZComplexityMap",
            display_name="CoZ Complexity Map",
            category="Chain-of-Zoom/step",
            description="Internal: how much detail each part of the image of Full-Image SR has.",
            is_dev_only=True,
            inputs=[io.Image.Input("image")],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image) -> io.NodeOutput:
        image = to_bchw(image)
        ratings = image.new_tensor([[rate_complexity(image)]])
        cells = resize(ratings.expand(-1, 3, -1, -1), *image.shape[-2:], "nearest")
        return io.NodeOutput(to_image(cells))
