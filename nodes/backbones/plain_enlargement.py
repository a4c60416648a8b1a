from torch import Tensor

from ...coz.tiles.grid import join_batch
from .backbone import Backbone, Tile


class PlainEnlargement(Backbone):
    """Leaves tiles as they are enlarged. No option of the backbone input: only for easy tiles."""

    name = "enlarge"
    summary = "Bicubic, without a model."
    reads_text = False

    @classmethod
    def inputs(cls, **socket_options) -> list:
        return []

    def add_nodes(self, add_node, i, view, text) -> list:
        return view.zoomed

    def run(self, tiles: list[Tile], texts: list[str]) -> Tensor:
        return join_batch([tile.zoomed for tile in tiles])
