"""Patch encoder: what turns a recording into tokens, trained with the path that it belongs to.

``SeriesReader`` is what it shares with the kernel encoder (``nn.kernels``): channels are measured
against those of the training data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

KERNELS = (3, 9, 19)  # of a layer's parallel convolutions, in patches
# Of a channel over the windows of the training data; scales are logarithms.
STATISTICS = {"level_mean": 0.0, "level_std": 1.0, "scale_mean": 0.0, "scale_std": 1.0}
_EPS = 1e-6  # of the typical scale: what varies less is constant
_TINY = 1e-30
FARTHEST = 20.0  # deviations from the training data; a broken sensor must not drown the rest


@dataclass(frozen=True)
class PatchSpec:
    """What a patch encoder is made of.

    Attributes:
        length: Length of a patch, in samples.
        stride: Samples from the beginning of a patch to that of the next.
        width: Width of a token; a multiple of 4.
        layers: Layers over the patches.
        dropout: Probability, in [0, 1), in every layer.
    """

    length: int
    stride: int
    width: int = 128
    layers: int = 3
    dropout: float = 0.1


class Windows(NamedTuple):
    """Windows side by side, as many samples long as the longest.

    Attributes:
        values: Of each channel, less its level; 0 where none is there.
        present: 1 where a value is there, 0 elsewhere.
        scale: Deviation of each channel within its window.
        told: Level and scale of each channel, measured against the training data.
    """

    values: Float[Tensor, "windows time channels"]
    present: Float[Tensor, "windows time channels"]
    scale: Float[Tensor, "windows channels"]
    told: Float[Tensor, "windows level_and_scale"]


class SeriesReader(nn.Module):
    """Takes the level of every channel away, and tells it, and the scale, beside.

    The shape of a signal is learnt better so; level and scale are told as ChatTS does (arXiv
    2412.03104), measured against the training data, whose statistics are kept here.

    Args:
        channels: Channels of the recordings.
    """

    level_mean: Tensor
    level_std: Tensor
    scale_mean: Tensor
    scale_std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        for name, value in STATISTICS.items():
            self.register_buffer(name, torch.full((channels,), value))

    @property
    def least(self) -> Float[Tensor, " channels"]:
        """A scale that is next to none."""
        return (_EPS * self.scale_mean.exp()).clamp(min=_TINY)

    def read(self, units: Sequence[Float[Tensor, "_ values_and_presence"]]) -> Windows:
        """Return windows of any lengths side by side."""
        longest = max(map(len, units))
        padded = torch.stack([F.pad(unit, (0, 0, 0, longest - len(unit))) for unit in units])
        values, present = padded.chunk(2, dim=2)
        level, scale = _statistics(values, present)
        values = (values - level[:, None]) * present
        level = (level - self.level_mean) / self.level_std
        logs = ((scale + self.least).log() - self.scale_mean) / self.scale_std
        told = torch.cat([level, logs], dim=1).clamp(-FARTHEST, FARTHEST)
        return Windows(values, present, scale, told)

    @torch.no_grad()
    def measure(self, units: Sequence[Float[Tensor, "_ values_and_presence"]]) -> None:
        """Keep the statistics of training data: of each channel's level and scale over windows."""
        found = [_statistics(*unit[None].chunk(2, dim=2)) for unit in units]
        levels = torch.cat([level for level, _ in found])
        scales = torch.cat([scale for _, scale in found])
        typical = scales.mean(0)
        logs = (scales + (_EPS * typical).clamp(min=_TINY)).log()
        self.level_mean.copy_(levels.mean(0))
        # Levels that hardly vary from window to window are measured by the scale within one.
        self.level_std.copy_((levels.std(0, correction=0) + 0.1 * typical).clamp(min=_TINY))
        self.scale_mean.copy_(logs.mean(0))
        self.scale_std.copy_(logs.std(0, correction=0) + 0.1)


class PatchEncoder(SeriesReader):
    """Recordings in, a token a patch out.

    Each channel of a window is brought to mean 0 and deviation 1. What that takes away, the level
    and the scale, is given to every token beside.

    Args:
        spec: What it is made of.
        channels: Channels of the recordings.
    """

    def __init__(self, spec: PatchSpec, channels: int) -> None:
        super().__init__(channels)
        self.spec = spec
        self.cut = nn.Conv1d(
            2 * channels, spec.width, spec.length, spec.stride, padding=spec.length // 2
        )
        self.statistics = nn.Linear(2 * channels, spec.width)
        self.layers = nn.ModuleList(_Layer(spec.width, spec.dropout) for _ in range(spec.layers))

    def forward(
        self, units: Sequence[Float[Tensor, "_ values_and_presence"]]
    ) -> list[Float[Tensor, "_ width"]]:
        """Return the tokens of each unit: a patch every ``stride`` samples.

        Args:
            units: Windows; of each channel the values, 0 where none is there, then whether it is.
        """
        values, present, scale, told = self.read(units)
        shape = values / (scale[:, None] + self.least)
        patches = self.cut(torch.cat([shape, present], dim=2).transpose(1, 2)).transpose(1, 2)
        patches = patches + self.statistics(told)[:, None]
        counts = [self._num_patches(len(unit)) for unit in units]
        mask = _mask(counts, patches)
        for layer in self.layers:
            patches = layer(patches, mask)
        return [row[:count] for row, count in zip(patches, counts, strict=True)]

    def _num_patches(self, length: int) -> int:
        padded = length + 2 * (self.spec.length // 2)
        return max(1, (padded - self.spec.length) // self.spec.stride + 1)


class _Layer(nn.Module):
    """Parallel convolutions over patches, as in InceptionTime (arXiv 1909.04939), as a residual."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        part = width // 4
        self.norm = nn.LayerNorm(width)
        self.narrow = nn.Linear(width, part)
        self.kernels = nn.ModuleList(
            nn.Conv1d(part, part, size, padding=size // 2) for size in KERNELS
        )
        self.beside = nn.Linear(width, width - len(KERNELS) * part)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, patches: Float[Tensor, "batch tokens width"], mask: Bool[Tensor, "batch tokens 1"]
    ) -> Float[Tensor, "batch tokens width"]:
        normed = self.norm(patches)
        narrow = (self.narrow(normed) * mask).transpose(1, 2)  # beyond the end there is nothing
        seen = [kernel(narrow).transpose(1, 2) for kernel in self.kernels]
        mixed = self.mix(F.gelu(torch.cat([*seen, self.beside(normed)], dim=2)))
        return patches + self.dropout(mixed)


def _statistics(
    values: Float[Tensor, "windows time channels"], present: Float[Tensor, "windows time channels"]
) -> tuple[Float[Tensor, "windows channels"], Float[Tensor, "windows channels"]]:
    """Return mean and standard deviation of what is there."""
    count = present.sum(1).clamp(min=1)
    level = (values * present).sum(1) / count
    off = (values - level[:, None]) * present
    return level, (off.square().sum(1) / count).sqrt()


def _mask(counts: Sequence[int], like: Float[Tensor, "batch tokens _"]) -> Tensor:
    places = torch.arange(like.shape[1], device=like.device)
    return (places < torch.tensor(counts, device=like.device)[:, None])[..., None]
