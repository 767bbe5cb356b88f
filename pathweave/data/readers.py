"""Readers: how media of each modality become what a path, or the base itself, reads."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pathweave.data.cache import FeatureCache
from pathweave.decoders import Decoder, build_decoder
from pathweave.encoders import BASE, BaseTower, build_encoder
from pathweave.encoders.base_tower import VisionLlmReader
from pathweave.encoders.encoder import Encoder
from pathweave.encoders.media import Frames, Media
from pathweave.errors import PathError, RecipeError
from pathweave.model.prompt import Medium, Native
from pathweave.parts import check_sources
from pathweave.recipe.schema import Modality
from pathweave.validation import unknown


@dataclass(frozen=True)
class FeatureReader:
    """How media of one modality become features: decoder, frozen encoder, cache."""

    decoder: Decoder
    encoder: Encoder
    cache: FeatureCache

    def read(self, items: list[tuple[bytes, str]]) -> list[Float[Tensor, "units tokens width"]]:
        """Return the features of media given as bytes and a name for messages."""
        return self.cache.features(self.encoder, self.decoder, items)

    def is_cached(self, data: bytes) -> bool:
        """Return whether features of these bytes are on disk."""
        return self.cache.holds(self.encoder, self.decoder, data)

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.encoder.width

    def of(self, modality: str) -> "FeatureReader":
        """Return the reader of media of a modality: this one, which reads all alike."""
        return self

    def medium(self, path: str, modality: str, item: tuple[bytes, str]) -> Medium:
        """Return a medium, given as bytes and a name for messages, for a path to read."""
        return Medium(path, self.read([item])[0])


@dataclass(frozen=True)
class JointReader:
    """How media of several modalities become features for one path: each as in its own modality.

    Attributes:
        path: Name of the path.
        reads: The modalities.
        readers: Their readers, by modality.
    """

    path: str
    reads: tuple[str, ...]
    readers: "Mapping[str, AnyReader]"

    @property
    def width(self) -> int:
        """Width of the features.

        Raises:
            RecipeError: If the modalities differ in it.
        """
        return common_width(self.path, {name: self.readers[name].width for name in self.reads})

    def of(self, modality: str) -> FeatureReader:
        """Return the reader of media of a modality.

        Raises:
            PathError: If the path reads no media of that modality.
        """
        if modality not in self.reads:
            what = f"a medium for path {self.path!r}"
            raise PathError(unknown(what, modality, list(self.reads)))
        return cast(FeatureReader, self.readers[modality].of(modality))

    def medium(self, path: str, modality: str, item: tuple[bytes, str]) -> Medium:
        """Return a medium of a modality, given as bytes and a name, for the path to read."""
        return Medium(path, self.of(modality).read([item])[0], modality)


@dataclass(frozen=True)
class NativeReader:
    """How media that the base reads by itself are decoded for its processor.

    Attributes:
        kind: What they are, as the processor calls it.
        decoder: Their decoder.
    """

    kind: str
    decoder: Decoder
    width = 0

    def read(self, items: list[tuple[bytes, str]]) -> list[object]:
        """Return media as the processor takes them, given as bytes and a name for messages."""
        return [as_native(self.decoder(*item)) for item in items]

    def is_cached(self, data: bytes) -> bool:
        """Return that nothing is kept: a medium is decoded each time it is asked about."""
        return False

    def of(self, modality: str) -> "NativeReader":
        """Return itself: it reads all alike."""
        return self

    def medium(self, path: str, modality: str, item: tuple[bytes, str]) -> Native:
        """Return a medium, given as bytes and a name for messages."""
        return Native(self.kind, self.read([item])[0])


AnyReader = FeatureReader | JointReader | NativeReader


def as_native(media: Media) -> Image.Image | UInt8[np.ndarray, "frames height width 3"]:
    """Return what a processor of transformers takes for pictures: one, or frames of a film."""
    assert isinstance(media, Frames)
    return Image.fromarray(media.pixels[0]) if len(media.pixels) == 1 else media.pixels


def common_width(path: str, widths: Mapping[str, int]) -> int:
    """Return the width of the features that a path reads; 0 if none is given.

    Args:
        path: Name of the path.
        widths: Width of the features by modality.

    Raises:
        RecipeError: If the modalities differ in it.
    """
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise RecipeError(
            f"modalities.{path}.reads must name modalities whose encoders give features of one "
            f"width, got {listed}; leave some out, or give them encoders of the same width"
        )
    return max(widths.values(), default=0)


class Readers(Mapping[str, AnyReader]):
    """Readers of declared modalities, each built when first used; equal encoders are shared.

    Args:
        modalities: The declarations, by name.
        cache: Where features are kept.
        learnt: Hash of the source of each part of a user's own that a finished path depends on, by
            path and part. A reader of such a path is refused if the part is another now.
        native: Kinds of media that the base reads by itself, and the kind of their decoder.
        base: The base where it is a vision LLM: the encoder ``base`` is its tower.
        guard: Wraps each decoder, such as in one that works in another process.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        cache: FeatureCache,
        learnt: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
        native: Mapping[str, str] = MappingProxyType({}),
        base: VisionLlmReader | None = None,
        guard: Callable[[Decoder], Decoder] = lambda decoder: decoder,
    ) -> None:
        self._guard = guard
        self._native = {kind: of for kind, of in native.items() if kind not in modalities}
        self._modalities = dict(modalities)
        self._cache = cache
        self._learnt = learnt
        self._base = base
        self._built: dict[str, AnyReader] = {}
        self._encoders: dict[str, Encoder] = {}

    def __getitem__(self, name: str) -> AnyReader:
        if name in self._native:
            return NativeReader(name, self._guard(build_decoder(self._native[name])))
        declared = self._modalities[name]
        if name not in self._built and declared.reads:
            self._built[name] = JointReader(name, declared.reads, self)
        elif name not in self._built:
            decoder, encoder = declared.parts
            for path, sources in self._learnt.items():
                check_sources((decoder.kind, encoder.kind), sources, path)
            built = self._guard(build_decoder(decoder.kind, **decoder.options))
            key = json.dumps([encoder.kind, encoder.options], sort_keys=True)
            if key not in self._encoders:
                self._encoders[key] = (
                    BaseTower(**encoder.options, reader=self._base)
                    if encoder.kind == BASE
                    else build_encoder(encoder.kind, **encoder.options)
                )
            self._built[name] = FeatureReader(built, self._encoders[key], self._cache)
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter((*self._modalities, *self._native))

    def __len__(self) -> int:
        return len(self._modalities) + len(self._native)
