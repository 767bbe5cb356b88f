"""What a batch has read: its rows may leave and others may come, and nobody is read again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


@dataclass
class Held:
    """The rows of a batch, up to the token before the latest one that each has said.

    Attributes:
        cache: Their keys and values, padded on the left. Every layer must attend to everything
            before, see ``Prefixes.are_shareable``.
        mask: Which columns of the cache count (1).
        paths: For each row the path that corrects what it says next inside the language model;
            None where none does.
    """

    cache: DynamicCache
    mask: Int[Tensor, "rows read"]
    paths: list[str | None]

    def keep(self, rows: Sequence[int]) -> None:
        """Let all but some rows leave, at least one, and cut off padding that none of them needs.

        Args:
            rows: Indices of those that stay, in their new order.
        """
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        first = int(mask.any(0).to(torch.uint8).argmax())
        self.mask = mask[:, first:]
        for layer in self._layers:
            layer.keys = cast(Tensor, layer.keys)[index, :, first:]
            layer.values = cast(Tensor, layer.values)[index, :, first:]
        self.paths = [self.paths[row] for row in rows]

    def join(self, others: "Held") -> None:
        """Let the rows of another batch come, after the own ones; that batch is used up."""
        length = max(self.mask.shape[1], others.mask.shape[1])

        def joined(own: Tensor, theirs: Tensor, dim: int) -> Tensor:
            # Padding is given for the last dimension first, and for its left side first.
            sides = [(*(0, 0) * (-dim - 1), length - x.shape[dim], 0) for x in (own, theirs)]
            return torch.cat([F.pad(own, sides[0]), F.pad(theirs, sides[1])])

        self.mask = joined(self.mask, others.mask, -1)
        for mine, other in zip(self._layers, others._layers, strict=True):
            mine.keys = joined(cast(Tensor, mine.keys), cast(Tensor, other.keys), -2)
            mine.values = joined(cast(Tensor, mine.values), cast(Tensor, other.values), -2)
        self.paths = [*self.paths, *others.paths]

    @property
    def _layers(self) -> list[DynamicLayer]:
        return cast(list[DynamicLayer], self.cache.layers)
