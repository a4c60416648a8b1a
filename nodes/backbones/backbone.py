from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ...coz.geometry import Window
from ...coz.tiles.layout import TileLayout


class ViewLinks(NamedTuple):
    """What a step of Chain Loop sharpens, as links to images of (1, h, w, 3)."""

    zoomed: list
    """The window, enlarged by bicubic to the size of the frame: the result has this size."""
    crop: list
    """The window as it is."""
    frame: list
    """The frame before, which the window was cut from."""
    window: list
    """Where in the frame: a BOUNDING_BOX."""
    seed: int


class TilePass(NamedTuple):
    """What all tiles of one pass of Full-Image SR share."""

    picture: Tensor
    """(1, 3, H, W), before it is enlarged."""
    layout: TileLayout
    texts: list[str]
    ring: int
    """Result pixels that each window has on every side beyond its tile; they are cut off later."""
    seed: int


class Tile(NamedTuple):
    """What one call of ``Backbone.run`` sharpens."""

    zoomed: Tensor | None
    """The enlarged view as an IMAGE (1, h, w, 3). It may be None if ``sees_surroundings``."""
    window: Window
    """In whole pixels of the result. Where it lies in the picture of the pass, ``coz.tiles.plan.tile_source``
    says. Only if ``sees_surroundings`` it may reach beyond the picture."""
    seed: int


class Backbone(ABC):
    """What sharpens each view: one option of the backbone input.

    An instance serves one expansion of Chain Loop or one pass of Full-Image SR.
    """

    name: ClassVar[str]
    """The option's name in workflows and on the node."""
    summary: ClassVar[str]
    """What the tooltip of the backbone input says of it."""
    reads_text: ClassVar[bool] = True
    reads_seed: ClassVar[bool] = False
    sees_surroundings: ClassVar[bool] = False
    """Whether ``run`` enlarges the picture of the pass itself, together with the pixels around a tile.

    False: tiles overlap and are blended, ``run`` gets each enlarged view, and after an out-of-memory
    error it is called with smaller tiles. True: tiles abut, the view may be missing, windows may
    reach beyond the picture, and ``run`` handles out-of-memory errors itself.
    """

    def __init__(self, chosen: dict):
        """Keep the values of the inputs. Models are links while a node expands."""
        self.chosen = chosen

    @classmethod
    @abstractmethod
    def inputs(cls, **handed) -> list[io.Input]:
        """Make its sockets and widgets. ``handed`` goes to the sockets: AS_LINKS or nothing."""

    def describe_scale(self, scale: float) -> str:
        """Return a notice for a scale that it was not trained for, else an empty text."""
        return ""

    @abstractmethod
    def add_nodes(self, add_node: Callable, i: int, view: ViewLinks, text: str | list) -> list:
        """Add the nodes that sharpen step i of Chain Loop and return the link to the image.

        ``add_node(class_type, name, **inputs)`` adds a node. The one that sharpens is named ``sr_{i}``.
        Of ComfyUI's nodes, take only those that run without a server: ComfyUI is also used as a
        library.
        """

    def start_pass(self, tiles: TilePass) -> None:
        """Prepare for the tiles of a pass."""
        self.tiles = tiles

    @abstractmethod
    def run(self, tile: Tile, text: str) -> Tensor:
        """Return the sharpened tile as an IMAGE (1, h, w, 3) of the window's size."""
