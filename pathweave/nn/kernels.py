"""Kernel encoder: what turns a recording into one token by fixed convolutions, as MiniRocket does.

MiniRocket: A Very Fast (Almost) Deterministic Transform for Time Series Classification, arXiv
2012.08791. Where recordings are few, its features generalise and a trained encoder overfits.
Axes: ``dilations``, ``kernels`` of each, ``biases`` of each kernel.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pathweave.nn.patches import FARTHEST, SeriesReader

LENGTH = 9  # of a kernel, in samples that are a dilation apart
GOLDEN = (math.sqrt(5) - 1) / 2  # its multiples are spread evenly over [0, 1), however many
_SUBSETS = 0  # seed of the channels that a kernel adds up
_MIN_STD_SHARE = 0.1
# Above a bias: where a signal is flat, outputs are 0 but for rounding, which must not decide.
_MARGIN = 1e-4


@dataclass(frozen=True)
class KernelSpec:
    """What a kernel encoder is made of.

    Attributes:
        reach: Samples that the most dilated kernel spans at most.
        biases: Biases of each kernel, hence features.
        width: Width of a token.
        dropout: Probability, in [0, 1), that a feature is left out in training.
    """

    reach: int
    biases: int = 4
    width: int = 256
    dropout: float = 0.1

    @property
    def dilations(self) -> tuple[int, ...]:
        """Samples from one weight of a kernel to the next: powers of 2."""
        most = max(1, (self.reach - 1) // (LENGTH - 1))
        return tuple(2**i for i in range(most.bit_length()))


class KernelEncoder(SeriesReader):
    """Recordings in, one token a window out: how often the output of each kernel exceeds a bias.

    The 84 kernels are those of MiniRocket: nine weights, three of them 2 and the others -1. A
    kernel reads the sum of some channels, drawn once, or the only one. Its biases are quantiles of
    its output on windows of the training data. Features are standardised over these; only their
    projection to a token is trained. The level and the scale of a window are told beside.

    Args:
        spec: What it is made of.
        channels: Channels of the recordings.
    """

    weights: Tensor
    subsets: Tensor
    biases: Tensor
    feature_mean: Tensor
    feature_std: Tensor

    def __init__(self, spec: KernelSpec, channels: int) -> None:
        super().__init__(channels)
        self.spec = spec
        chosen = list(combinations(range(LENGTH), 3))
        weights = torch.full((len(chosen), LENGTH), -1.0)
        for kernel, places in enumerate(chosen):
            weights[kernel, list(places)] = 2.0
        self.register_buffer("weights", weights, persistent=False)
        shape = len(spec.dilations), len(chosen)
        self.register_buffer("subsets", _subsets(*shape, channels))
        self.register_buffer("biases", torch.zeros(*shape, spec.biases))
        count = math.prod(shape) * spec.biases
        self.register_buffer("feature_mean", torch.zeros(count))
        self.register_buffer("feature_std", torch.ones(count))
        self.dropout = nn.Dropout(spec.dropout)
        self.project = nn.Linear(count, spec.width)
        self.statistics = nn.Linear(2 * channels, spec.width)
        # Features are many, levels and scales few: unless these count more, they learn too slowly.
        self.emphasis = count / (2 * channels)
        with torch.no_grad():
            self.statistics.weight /= self.emphasis

    def forward(
        self, units: Sequence[Float[Tensor, "_ values_and_presence"]]
    ) -> list[Float[Tensor, "1 width"]]:
        """Return the token of each unit.

        Args:
            units: Windows; of each channel the values, 0 where none is there, then whether it is.
        """
        features, told = self.features(units)
        tokens = self.project(self.dropout(features)) + self.statistics(self.emphasis * told)
        return [*tokens[:, None]]

    def features(
        self, units: Sequence[Float[Tensor, "_ values_and_presence"]]
    ) -> tuple[Float[Tensor, "windows features"], Float[Tensor, "windows level_and_scale"]]:
        """Return the features of each unit, standardised over the training data, and what is told.

        Args:
            units: Windows, as of ``forward``.
        """
        features, told = self._features(units)
        return (features - self.feature_mean) / self.feature_std, told

    @torch.no_grad()
    def measure(self, units: Sequence[Float[Tensor, "_ values_and_presence"]]) -> None:
        """Keep what training data say: statistics of channels, biases, statistics of features."""
        super().measure(units)
        dilations, kernels, biases = self.biases.shape
        # Each kernel takes its quantiles from one window, and the windows in turn.
        for start, unit in enumerate(units[: dilations * kernels]):
            values, present, _ = self._shapes([unit])
            for dilation in range(dilations):
                found = self._outputs(values, dilation)[0, :, present[0, 0] > 0]
                for kernel in range(kernels) if found.numel() else ():
                    place = dilation * kernels + kernel
                    if place % len(units) == start:
                        shares = (torch.arange(1, biases + 1) + place * biases) * GOLDEN % 1
                        middle = found[kernel].quantile(shares.to(found), interpolation="midpoint")
                        self.biases[dilation, kernel] = middle + _MARGIN
        features = torch.cat([self._features([unit])[0] for unit in units])
        std, mean = torch.std_mean(features, dim=0, correction=0)
        self.feature_mean.copy_(mean)
        # Features that hardly vary are not blown up.
        self.feature_std.copy_((std + _MIN_STD_SHARE * std.mean()).clamp(min=_MIN_STD_SHARE**2))

    def _shapes(
        self, units: Sequence[Float[Tensor, "_ values_and_presence"]]
    ) -> tuple[
        Float[Tensor, "windows channels time"],
        Float[Tensor, "windows 1 time"],
        Float[Tensor, "windows level_and_scale"],
    ]:
        """Return values in units of the usual deviation, where there are any, and what is told."""
        values, present, _, told = self.read(units)
        values = (values / (self.scale_mean.exp() + self.least)).clamp(-FARTHEST, FARTHEST)
        return values.mT, present.amax(2)[:, None], told

    def _outputs(
        self, values: Float[Tensor, "windows channels time"], dilation: int
    ) -> Float[Tensor, "windows kernels time"]:
        step = self.spec.dilations[dilation]
        weights = self.subsets[dilation][:, :, None] * self.weights[:, None]
        return F.conv1d(values, weights, padding=step * (LENGTH // 2), dilation=step)

    def _features(
        self, units: Sequence[Float[Tensor, "_ values_and_presence"]]
    ) -> tuple[Float[Tensor, "windows features"], Float[Tensor, "windows level_and_scale"]]:
        """Return the share of time in which each kernel exceeds each bias, and what is told."""
        values, present, told = self._shapes(units)
        count = present.sum(2).clamp(min=1)
        shares = []
        for dilation, biases in enumerate(self.biases.unbind()):
            outputs = self._outputs(values, dilation)
            for bias in biases.T:
                exceeds = (outputs > bias[:, None]) * present
                shares.append(exceeds.sum(2) / count)
        return torch.cat(shares, dim=1), told


def _subsets(dilations: int, kernels: int, channels: int) -> Float[Tensor, "dilations kernels _"]:
    """Return 1 for each channel that a kernel reads: from one to nine of them, rather few."""
    drawn = random.Random(_SUBSETS)
    subsets = torch.zeros(dilations, kernels, channels)
    most = math.log2(min(channels, LENGTH) + 1)
    for dilation in range(dilations):
        for kernel in range(kernels):
            count = int(2 ** drawn.uniform(0, most))
            subsets[dilation, kernel, drawn.sample(range(channels), min(count, channels))] = 1
    return subsets
