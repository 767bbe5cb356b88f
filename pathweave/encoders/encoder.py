"""What an encoder is, and how one that is a network reads media in batches.

Axes: ``units`` frames, clips or windows of time; ``tokens`` of a unit, ``width`` of a token.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.utils.data import default_collate

from pathweave.errors import MediaError, PathWeaveError, RecipeError
from pathweave.parts import source_of, told


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


class OwnEncoder:
    """An encoder of a user's own: its source is in its fingerprint, and its results are checked.

    Args:
        name: ``package.module:Class`` of the encoder.
        encoder: The encoder.

    Raises:
        RecipeError: If it lacks an attribute, or one is not what it must be.
    """

    def __init__(self, name: str, encoder: Any) -> None:  # noqa: ANN401 (what a user wrote)
        for field, kind in (("width", int), ("fingerprint", str), ("accepts", type)):
            if not isinstance(found := getattr(encoder, field, None), kind):
                raise RecipeError(
                    f"encoder {name!r} must have the attribute {field}, {kind.__name__}, got "
                    f"{found!r}; see docs/own_parts.md"
                )
        self.name, self.encoder = name, encoder
        self.width, self.accepts = encoder.width, encoder.accepts
        self.fingerprint = f"{name} {encoder.fingerprint} source={source_of(type(encoder))}"
        self.is_exact = getattr(encoder, "is_exact", False)

    def __call__(self, media: Sequence[Any]) -> list[Float32[Tensor, "units tokens width"]]:
        """Return the features of each medium.

        Raises:
            MediaError: If the encoder raises an error.
            RecipeError: If it gives something else than features.
        """
        try:
            features = self.encoder(media)
        except PathWeaveError:
            raise
        except Exception as error:  # a user's code may raise whatever it likes
            raise MediaError(
                f"encoder {self.name!r} must give features of every medium, got {told(error)}; "
                "mend it, or replace the medium"
            ) from error
        is_list = isinstance(features, list)
        if not is_list or len(features) != len(media) or not all(map(self._is_right, features)):
            found = [
                f"{list(each.shape)} of {each.dtype}" if isinstance(each, Tensor) else type(each)
                for each in (features if is_list else [features])
            ]
            raise RecipeError(
                f"encoder {self.name!r} must give a list with a float tensor [units, tokens, "
                f"{self.width}] for each of {len(media)} media, got "
                f"{found[:3] if is_list else found[0]}; mend it"
            )
        return [each.detach().to("cpu", torch.float32) for each in features]

    def _is_right(self, features: Any) -> bool:  # noqa: ANN401
        is_tensor = isinstance(features, Tensor) and features.is_floating_point()
        return is_tensor and features.dim() == 3 and features.shape[2] == self.width


class NetworkEncoder(ABC):
    """An encoder that is a frozen network, which reads neighbouring units of a shape together.

    Attributes:
        network: The network.
        batch: Most units that it reads at once.
        rate: Samples per second of the sounds it reads, Hz.
        accepts: The one class of media it reads.
    """

    network: Any
    batch: int
    rate: int
    accepts: type

    @abstractmethod
    def units(self, medium: Any) -> Sequence[Any]:  # noqa: ANN401
        """Return what is encoded by itself of a medium: a tensor each, or several by name."""

    def prepare(self, batch: Any) -> Any:  # noqa: ANN401
        """Return what the network reads for units that are stacked."""
        return batch

    @abstractmethod
    def encode(self, inputs: Any) -> Float[Tensor, "units *windows tokens width"]:  # noqa: ANN401
        """Return the tokens of what the network reads."""

    def __call__(self, media: Sequence[Any]) -> list[Float32[Tensor, "units tokens width"]]:
        """Return the features of each medium.

        Raises:
            MediaError: If a medium is not what the network reads.
        """
        counts: list[int] = []
        rows: list[Tensor] = []
        place = next(self.network.parameters()).device
        for batch in self._batches(media, counts):
            with torch.no_grad():
                inputs = self.prepare(moved(default_collate(batch), place))
                rows.extend(self.encode(inputs).float().cpu())
        ends = pairwise([0, *accumulate(counts)])
        return [torch.stack(rows[start:end]).flatten(0, -3) for start, end in ends]

    def _batches(self, media: Sequence[Any], counts: list[int]) -> Iterator[list[Any]]:
        """Yield neighbours of the same shapes, and note how many units each medium has."""
        batch: list[Any] = []
        for medium in media:
            own = self.units(medium)
            counts.append(len(own))
            for unit in own:
                if batch and (len(batch) >= self.most(unit) or shapes(unit) != shapes(batch[0])):
                    yield batch
                    batch = []
                batch.append(unit)
        if batch:
            yield batch

    def most(self, unit: Any) -> int:  # noqa: ANN401
        """Return how many units like this one are read at once."""
        return self.batch


def moved(inputs: Any, place: torch.device | str) -> Any:  # noqa: ANN401
    """Return a tensor, or tensors by name, on a device."""
    if isinstance(inputs, Tensor):
        return inputs.to(place)
    return {name: value.to(place) for name, value in inputs.items()}


def shapes(unit: Any) -> list[tuple[int, ...]]:  # noqa: ANN401
    """Return the shape of a tensor, or of each of several by name."""
    tensors = [unit] if isinstance(unit, Tensor) else unit.values()
    return [tuple(each.shape) for each in tensors]
