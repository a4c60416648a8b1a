"""Generators that know their device."""

import torch

CARD_SEED = 0x5EED
"""Added to the seed of a generator of the card: like a GPU's, it draws other numbers than the CPU's."""

_on_card: set[int] = set()
"""Torch's handles of the card's generators: in the dispatcher they arrive as other Python objects."""


def belongs_to_card(generator: torch.Generator) -> bool:
    return generator._cdata in _on_card


class Generator(torch.Generator):
    """``torch.Generator`` while there is a card: on the CPU or on the card."""

    def __new__(cls, device="cpu"):
        self = super().__new__(cls, "cpu")
        self.where = torch.device(device)
        if self.is_on_card:
            _on_card.add(self._cdata)
            self.manual_seed(self.initial_seed())
        return self

    def __del__(self):
        _on_card.discard(self._cdata)

    @property
    def device(self) -> torch.device:
        return self.where

    @property
    def is_on_card(self) -> bool:
        return self.where.type == "card"

    def manual_seed(self, seed: int) -> "Generator":
        super().manual_seed((seed + CARD_SEED * self.is_on_card) % 2**64)
        return self
