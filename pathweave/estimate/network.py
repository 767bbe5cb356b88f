"""A network run on the meta device: shapes of its output, operations, parameters.

Matrix products and convolutions are counted by ``torch.utils.flop_counter``, so the figures are
exact for the shapes. Choosing points and computing spectra are not counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

HALF, FULL = 2, 4  # bytes of a weight
CACHED = 2  # bytes of a value: the cache rounds to float16


@dataclass(frozen=True)
class Features:
    """Features of one medium.

    Attributes:
        units: Frames or windows.
        tokens: Tokens of a unit.
        width: Width of a token.
        parameters: Parameters of the encoder.
        weight_bytes: Bytes of its weights.
        flops: Operations to encode the medium, forward.
    """

    units: int
    tokens: int
    width: int
    parameters: int = 0
    weight_bytes: int = 0
    flops: int = 0

    @property
    def cached_bytes(self) -> int:
        """Bytes that they take on disk."""
        return self.units * self.tokens * self.width * CACHED


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
    units: int = 1
    weight_size: int = FULL

    def features(self) -> Features:
        """Run the network on one unit of shapes."""
        self.module.eval()
        with (
            torch.no_grad(),
            # Fused attention has no formula on every device; the plain one is two products.
            sdpa_kernel(SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            _, tokens, width = self.encode().shape
        parameters = sum(p.numel() for p in self.module.parameters())
        return Features(
            units=self.units,
            tokens=tokens,
            width=width,
            parameters=parameters,
            weight_bytes=parameters * self.weight_size,
            flops=self.units * counter.get_total_flops(),
        )


def empty(*shape: int) -> Tensor:
    """Return a tensor of shapes alone."""
    return torch.empty(shape, device="meta")


def weight_size(options: Mapping[str, object]) -> int:
    """Return the bytes of a weight of an encoder with the option ``precision``."""
    return FULL if options.get("precision") == "full" else HALF
