from torch import Tensor

from ...coz.tiles.grid import join_batch
from .backbone import Backbone, Tile


class PlainEnlargement(Backbone):
    """Returns tiles as they are after bicubic enlargement.

    It is used for easy tiles only, and is not an option of the backbone input.
    """

    name = "enlarge"
    summary = "Bicubic, without a model."
    reads_text = False

    @classmethod
    def make_inputs(cls, **socket_options) -> list:
        return []

    def add_nodes(self, add_node, i, view, text) -> list:
        return view.zoomed

    def run(self, tiles: list[Tile], texts: list[str]) -> Tensor:
        return join_batch([tile.zoomed for tile in tiles])
