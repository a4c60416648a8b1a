from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from comfy_api.latest import io
from torch import Tensor

from ...coz.tiles.layout import TileLayout


class TextSource(ABC):
    """A method that writes the texts that the user has not typed: one option of the prompting input.

    An instance serves one expansion of Chain Loop or one pass of Full-Image SR.
    """

    name: ClassVar[str]
    """The option's name in workflows and on the node."""
    summary: ClassVar[str]
    """Its description in the tooltip of the prompting input."""

    def __init__(self, chosen: dict):
        """Keep the values of the inputs. In an expanding node, links stand in place of the models."""
        self.chosen = chosen

    @classmethod
    @abstractmethod
    def make_inputs(cls, is_for_tiles: bool, **socket_options) -> list[io.Input]:
        """Make its sockets and widgets. ``socket_options`` are added to each socket, such as AS_LINKS."""

    @property
    @abstractmethod
    def reads_seed(self) -> bool:
        """Whether the texts depend on the seed, given the chosen values."""

    @abstractmethod
    def add_nodes(
        self, add_node: Callable, i: int, zoomed: list, frames: list[list], prompt: str, seed: int
    ) -> list:
        """Add the nodes that write the text of step i of Chain Loop and return the link to it.

        ``add_node(class_type, name, **inputs)`` adds a node; the one that writes is named
        ``prompt_{i}``. ``frames`` are the links to x_0 .. x_{i-1}, ``prompt`` is added to the text.
        """

    @abstractmethod
    def start_pass(self, image: Tensor, source: Tensor, layout: TileLayout, seed: int) -> None:
        """Prepare for a pass that enlarges ``image`` (1, 3, H, W), made from the IMAGE ``source``."""

    @abstractmethod
    def run(self, index: int) -> str:
        """Return the text of tile ``index`` of the pass, counted from 0."""
