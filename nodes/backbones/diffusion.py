from abc import abstractmethod
from collections.abc import Callable

from comfy_api.latest import io

from .backbone import Backbone, TilePass


class DiffusionBackbone(Backbone):
    """A backbone with a model, a VAE and text encoders, which encodes each distinct text once."""

    def __init__(self, chosen: dict):
        super().__init__(chosen)
        self.encoded: dict[str, list] = {}
        """Text -> its conditioning. In an expansion: repr of the text, or of the link to it -> the link to its
        conditioning."""

    @classmethod
    def make_inputs(cls, **socket_options) -> list[io.Input]:
        return [
            io.Model.Input(
                "model",
                **socket_options,
                tooltip="The model for the chosen backbone. one-step diffusion: the model from CoZ Load SR "
                "LoRA, or a checkpoint that the LoRA is merged into. any checkpoint: any image model. "
                "diffusion inversion: the model from CoZ Load InvSR.",
            ),
            io.Vae.Input("vae", **socket_options, tooltip="The VAE that belongs to model."),
            io.Clip.Input(
                "clip", **socket_options, tooltip="The text encoders that belong to model."
            ),
        ]

    @abstractmethod
    def encode(self, text: str) -> list:
        """Return the conditioning of a text."""

    @abstractmethod
    def choose_encoder(self, text: str | list) -> tuple[str, dict]:
        """Return the class and the inputs, without clip, of the node that encodes a text."""

    def add_encoder(self, add_node: Callable, name: int | str, text: str | list) -> list:
        """Add the node that encodes a text, unless it exists, and return the link to the conditioning."""
        # A link is a list, which cannot be a key. repr quotes a text, so its key never equals that of a link.
        key = repr(text)
        if key not in self.encoded:
            encoder, inputs = self.choose_encoder(text)
            child = add_node(encoder, f"text_{name}", clip=self.chosen["clip"], **inputs)
            self.encoded[key] = child.out(0)
        return self.encoded[key]

    def start_pass(self, tile_pass: TilePass) -> None:
        super().start_pass(tile_pass)
        # Encode all texts before the first tile, so that the text encoder is loaded once.
        self.encoded = {text: self.encode(text) for text in dict.fromkeys(tile_pass.texts)}
