from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

from comfy_api.latest import io
from torch import Tensor

from ...coz.geometry import Window
from ...coz.tiles.layout import TileLayout


class ViewLinks(NamedTuple):
    """The view that a step of Chain Loop sharpens, as links to IMAGEs (1, h, w, 3) and a window."""

    zoomed: list
    """The crop, enlarged with bicubic to the size of the frame, which is the size of the result."""
    crop: list
    """The pixels of the window."""
    frame: list
    """The frame before this step, which contains the window."""
    window: list
    """The place of the window in the frame, a BOUNDING_BOX."""
    seed: int


class TilePass(NamedTuple):
    """Data that all tiles of one pass of Full-Image SR share."""

    image: Tensor
    """The image (1, 3, H, W) that the pass enlarges."""
    layout: TileLayout
    texts: list[str]
    ring: int
    """Number of result pixels by which each window extends beyond its tile; they are cut off later."""
    seed: int


class Tile(NamedTuple):
    """A tile that ``Backbone.run`` sharpens."""

    zoomed: Tensor | None
    """The enlarged view as an IMAGE (1, h, w, 3). It may be None if ``enlarges_input``."""
    window: Window
    """The tile with its ring, in whole pixels of the result. ``find_tile_input`` computes its place in the
    image of the pass. It reaches beyond that image only if ``enlarges_input``."""
    seed: int


class Backbone(ABC):
    """A method that sharpens views: one option of the backbone input.

    An instance serves one expansion of Chain Loop or one pass of Full-Image SR.
    """

    name: ClassVar[str]
    """The option's name in workflows and on the node."""
    summary: ClassVar[str]
    """Its description in the tooltip of the backbone input."""
    reads_text: ClassVar[bool] = True
    reads_seed: ClassVar[bool] = False
    enlarges_input: ClassVar[bool] = False
    """Whether ``run`` enlarges the input itself, for which it also reads the pixels around a tile.

    False: tiles overlap and are blended, ``run`` gets each enlarged view, and after an out-of-memory
    error it is called with fewer, then with smaller tiles. True: tiles abut, the view may be missing,
    windows may reach beyond the image, and ``run`` handles out-of-memory errors itself.
    """

    denoise: float | list | None = None
    """The denoise (0..1), or the link to it, of the step that ``add_nodes`` added last. None if the backbone
    has no denoise."""

    def __init__(self, chosen: dict):
        """Keep the values of the inputs. In an expanding node, links stand in place of the models."""
        self.chosen = chosen

    @classmethod
    @abstractmethod
    def make_inputs(cls, **socket_options) -> list[io.Input]:
        """Make its sockets and widgets. ``socket_options`` are added to each socket, such as AS_LINKS."""

    def write_untrained_scale_notice(self, scale: float) -> str:
        """Return a notice if the backbone was not trained for this scale, otherwise ""."""
        return ""

    def set_denoise(self, denoise: float) -> list[str]:
        """Set the denoise of all steps, if the backbone has one.

        Return the inputs that this changes, such as "denoise 0.3", for a notice.
        """
        return []

    def write_extra_values_notice(self, name: str, count: int) -> str:
        """Return a notice if an input lists values for more steps or passes than the run has, else "".

        ``count`` is the number of steps or passes, and ``name`` the name of the input with this number.
        """
        return ""

    def choose_inputs(self, i: int) -> dict:
        """Return the values of the inputs for pass i of Full-Image SR."""
        return self.chosen

    @abstractmethod
    def add_nodes(self, add_node: Callable, i: int, view: ViewLinks, text: str | list) -> list:
        """Add the nodes that sharpen step i of Chain Loop and return the link to the image.

        ``add_node(class_type, name, **inputs)`` adds a node. The one that sharpens is named ``sr_{i}``.
        Each must run without a server, because ComfyUI is also used as a library.
        """

    def add_check(self, add_node: Callable) -> None:  # noqa: B027
        """Add a node that refuses models which do not fit together, before any work.

        No other node may depend on it: otherwise a change of the model would invalidate the cached texts
        of all tiles.
        """

    def start_pass(self, tile_pass: TilePass) -> None:
        """Prepare for the tiles of a pass of Full-Image SR."""
        self.tile_pass = tile_pass

    def choose_group_size(self, window: Window) -> int:
        """Return how many tiles of a window's size a GPU sharpens in one call of ``run``."""
        return 1

    @abstractmethod
    def run(self, tiles: list[Tile], texts: list[str]) -> Tensor:
        """Return sharpened tiles as an IMAGE (B, h, w, 3) of the size that all their windows have."""
