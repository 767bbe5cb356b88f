"""A network run on the meta device: shapes of its output, operations, parameters.

Matrix products and convolutions are counted by ``torch.utils.flop_counter``, so the figures are
exact for the shapes. Choosing points and computing spectra are not counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pathweave.estimate.costs import Features
from pathweave.estimate.measure import Meter, size

HALF, FULL = 2, 4  # bytes of a weight


@dataclass(frozen=True)
class Network:
    """A network on the meta device and how an encoder uses it.

    Attributes:
        module: The network.
        encode: Makes the tokens of one unit.
        units: Units of a medium.
        weight_size: Bytes of a weight.
    """

    module: nn.Module
    encode: Callable[[], Float[Tensor, "1 tokens width"]]
    units: int = field(default=1, compare=False)
    weight_size: int = FULL

    def features(self) -> Features:
        """Return what the network makes of a medium."""
        unit = _measured(self)
        return replace(unit, units=self.units, flops=self.units * unit.flops)


@lru_cache(maxsize=4)
def _measured(network: Network) -> Features:
    """Return what a network makes of one unit; what it was asked last is remembered."""
    network.module.eval()
    with torch.no_grad(), Meter() as meter:
        _, tokens, width = network.encode().shape
    parameters = size(network.module)
    return Features(1, tokens, width, parameters, parameters * network.weight_size, meter.flops)


def empty(*shape: int) -> Tensor:
    """Return a tensor of shapes alone."""
    return torch.empty(shape, device="meta")


def weight_size(options: Mapping[str, object]) -> int:
    """Return the bytes of a weight of an encoder with the option ``precision``."""
    return FULL if options.get("precision") == "full" else HALF
