"""Positions of tokens that have an order: along one axis, or two."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

PositionKind = Literal["none", "sinusoidal", "learned"]
LEARNED = 32  # places of a learned table, stretched over a sequence of any length
_LONGEST_WAVE = 10_000.0
_STD = 0.02


class Positions(nn.Module):
    """Adds to every token of a sequence a vector that says where it stands.

    Attention sees its tokens as a set: without positions, a sequence read backwards gives what it
    gives forwards. Sinusoids (Vaswani et al. 2017) count tokens from the beginning, so any length
    is read; a learned table is stretched over the sequence, so its places are shares of the
    length.

    Args:
        kind: ``sinusoidal`` or ``learned``.
        width: Width of a token.
        columns: Tokens a row, where tokens lie row by row on a grid; the rows may be any number.
            None is a sequence along one axis.
    """

    def __init__(self, kind: PositionKind, width: int, columns: int | None = None) -> None:
        super().__init__()
        self.width, self.columns = width, columns
        self.scale = nn.Parameter(torch.ones(())) if kind == "sinusoidal" else None
        if kind == "learned":
            self.rows = nn.Parameter(torch.randn(LEARNED, width) * _STD)
            if columns is not None:
                self.across = nn.Parameter(torch.randn(columns, width) * _STD)

    def forward(self, tokens: Float[Tensor, "tokens width"]) -> Float[Tensor, "tokens width"]:
        """Return the tokens of one sequence with their positions added."""
        place = torch.arange(len(tokens), device=tokens.device)
        rows, columns = place, None
        if self.columns is not None:
            rows, columns = place // self.columns, place % self.columns
        if self.scale is not None:
            axes = [axis for axis in (rows, columns) if axis is not None]
            waves = [sinusoids(axis, self.width // len(axes)) for axis in axes]
            found = torch.cat(waves, dim=1)
            return tokens + self.scale * F.pad(found, (0, self.width - found.shape[1]))
        count = -(-len(tokens) // (self.columns or 1))
        table = F.interpolate(self.rows.T[None], max(count, 1), mode="linear", align_corners=True)
        tokens = tokens + table[0].T[rows]
        return tokens if columns is None else tokens + self.across[columns]


def sinusoids(places: Tensor, width: int) -> Float[Tensor, "tokens width"]:
    """Return sines and cosines of places, of wavelengths from 2 pi to 10,000 times 2 pi.

    Example:
        >>> sinusoids(torch.arange(2), 4).round(decimals=2).tolist()
        [[0.0, 0.0, 1.0, 1.0], [0.8399999737739563, 0.009999999776482582, 0.5400000214576721, 1.0]]
    """
    half = width // 2
    steps = torch.arange(half, device=places.device, dtype=torch.float32)
    angles = places[:, None] * torch.exp(-math.log(_LONGEST_WAVE) * steps / max(half, 1))
    return torch.cat([angles.sin(), angles.cos()], dim=1)
