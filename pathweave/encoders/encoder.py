"""Protocol of encoders."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float32
from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """A frozen feature extractor: media in, tokens out, one result per medium.

    Attributes:
        width: Width of a token.
        fingerprint: Kind, settings and weights; equal fingerprints mean equal features.
        accepts: The one class of media the encoder reads.
    """

    width: int
    fingerprint: str
    accepts: type

    def __call__(self, media: Sequence[Any]) -> list[Float32[Tensor, "units tokens width"]]:
        """Return the features of each medium, on the CPU and without gradient.

        A unit is one frame or one window of time. Media may differ in their number of units.
        """
        ...
