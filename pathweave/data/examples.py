"""Samples with their features: what training and evaluation iterate over."""

import contextlib
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pathweave.data.cache import FeatureCache
from pathweave.data.coverage import load_coverage
from pathweave.data.manifest import Manifest, evenly_spaced
from pathweave.data.messages import Message, Part, Sample
from pathweave.decoders import Decoder, build_decoder
from pathweave.encoders import BASE, BaseTower, build_encoder
from pathweave.encoders.base_tower import VisionLlmReader
from pathweave.encoders.encoder import Encoder
from pathweave.encoders.media import Frames, Media
from pathweave.errors import ManifestError, MediaError, PathError, RecipeError, RunError
from pathweave.model.prompt import Medium, Native, Prompt, Turn
from pathweave.parts import check_sources
from pathweave.recipe.schema import SLOT, Modality
from pathweave.storage.atomic import sha256_bytes
from pathweave.validation import unknown

LISTED = 5
KEPT = 16_384  # samples that are kept in memory; more are parsed each time they are asked for
LONG = 2000  # characters from which a sample may be too long for a language model


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


class _Samples(Sequence[Sample]):
    """Some samples of a manifest, parsed when asked for; a number of them are kept in memory."""

    def __init__(self, manifest: Manifest, rows: Sequence[int]) -> None:
        self._manifest, self._rows = manifest, array("q", rows)
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]  # no slices
        row = self._rows[index]
        if row in self._kept:
            return self._kept[row]
        sample = self._manifest[row]
        if len(self._kept) < KEPT:
            self._kept[row] = sample
        return sample

    def of(self, indices: Sequence[int]) -> "_Samples":
        """Return the samples at some indices."""
        chosen = _Samples(self._manifest, [self._rows[index] for index in indices])
        chosen._kept = {row: self._kept[row] for row in chosen._rows if row in self._kept}
        return chosen


class Examples:
    """The usable samples of a manifest.

    Args:
        manifest: The manifest.
        readers: Readers by modality; every part type of the manifest must be one.
        path: Read every medium with this path; None reads each with that of its part type. A path
            that reads several modalities takes the reader of a medium's own, others take theirs.
        limit: Use only so many samples, evenly spaced; None uses all.
        prompts: Templates, of which each sample draws one: it is put after the media instead of
            the sample's text, which takes the place of ``{}`` in it. None are given: the prompt
            stays as it is.
        seed: Seed of the draw; a sample's draw depends on its id and on nothing else.

    Attributes:
        total: Samples of the manifest (or ``limit``), those that cannot be used among them.
        published: The same with samples that the data set has and the manifest lacks, as their
            media were not there when it was converted.
        bad: Why samples cannot be used, a line each.

    Raises:
        ManifestError: If the manifest cannot be read, or names a modality that is not declared or
            that the path does not read.
    """

    def __init__(
        self,
        manifest: Path,
        readers: Mapping[str, AnyReader],
        path: str | None = None,
        limit: int | None = None,
        prompts: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.manifest = Manifest(manifest, on_error="collect")
        self.bad: list[str] = list(self.manifest.problems)
        self._readers = readers
        self._samples = _Samples(self.manifest, evenly_spaced(len(self.manifest), limit))
        self.total = len(self._samples) + len(self.bad)
        coverage = load_coverage(manifest) if limit is None else None
        self.published = self.total + (0 if coverage is None else coverage.absent)
        self._path = path
        self._prompts = prompts
        self._seed = seed
        for name in {path} if path else self.manifest.part_types:
            if name not in readers:
                what = "a part type or path"
                raise ManifestError(f"{manifest}: {unknown(what, name, ['text', *readers])}")
        try:
            for modality in sorted(self.manifest.part_types) if path else ():
                self._reader_of(modality)
        except PathError as error:
            raise ManifestError(f"{manifest}: {error}") from error

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int) -> Sample:
        """Return the sample itself."""
        return self._samples[index]

    def encode(
        self, advance: Callable[[int], None], process: int = 0, num_processes: int = 1
    ) -> None:
        """Compute the features of this process's share that are not cached yet.

        Media that cannot be decoded are passed over here; ``drop_bad_samples`` lists them.

        Args:
            advance: Called with the number of samples done, by all if they are as fast as this one.
            process: Which share.
            num_processes: Number of shares.
        """
        for index in range(process, len(self), num_processes):
            sample = self._samples[index]
            for part in _media(sample):
                with contextlib.suppress(MediaError):
                    self._encode(part)
            advance(min(num_processes, len(self) - index))

    def _encode(self, part: Part) -> None:
        data, reader = self.manifest.read_media(part), self._reader_of(part.type)
        if not reader.is_cached(data):
            reader.read([(data, part.path or "")])

    def drop_bad_samples(
        self, share: float, misfit: Callable[[Prompt, str], str | None] = lambda *_: None
    ) -> None:
        """Drop samples that are too long, or empty, or whose media have no features, and say why.

        The reasons are listed in ``bad``.

        Args:
            share: Share of bad samples, in [0, 1], above which the data are refused.
            misfit: Says why the language model cannot read a prompt and its answer.

        Raises:
            RunError: If more than that are bad.
        """
        usable = []
        for index, sample in enumerate(self._samples):
            try:
                for part in _media(sample):
                    self._encode(part)
            except MediaError as error:
                self.bad.append(f"{sample.id}: {error}")
                continue
            # Few samples come near: the features of the others are not read for it.
            is_long = self.length(index) > LONG
            is_empty = not any(part.text is None or part.text.strip() for part in sample.prompt)
            has_answer = any(turn.role == "assistant" for turn in sample.messages)
            answer = sample.answer if has_answer else ""
            if (is_long or is_empty) and (problem := misfit(self.prompt(index), answer)):
                self.bad.append(f"{sample.id}: {problem}")
            else:
                usable.append(index)
        self._samples = self._samples.of(usable)
        if len(self.bad) > share * self.total or not usable:
            listed = "\n  ".join(self.bad[:LISTED])
            raise RunError(
                f"{self.manifest.path} must have at most {share:.1%} bad samples, got "
                f"{len(self.bad)} of {self.total}; mend or remove them, or raise bad_samples in "
                f"the recipe. The first:\n  {listed}"
            )

    def draw(self, count: int) -> None:
        """Keep so many samples, drawn by the seed, each answer in the share that it has.

        A larger draw with the same seed holds a smaller one. Which samples are drawn depends on
        their ids and answers alone, not on their order in the manifest.

        Args:
            count: How many; more than there are keeps all.

        Raises:
            ManifestError: If a sample has no answer to learn.
        """
        numbers: dict[str, list[int]] = {}
        for index, sample in enumerate(self._samples):
            numbers.setdefault(sample.answer, []).append(index)
        places: list[tuple[float, str, int]] = []
        for answer, own in numbers.items():
            # Evenly over [0, 1) from a random place on: whatever lies below a bound is a share.
            own.sort(key=lambda index: self._chance(self._samples[index].id))
            first = self._chance(f"answer {answer}")
            spread = [(k + first) / len(own) for k in range(len(own))]
            places += zip(spread, [self._samples[i].id for i in own], own, strict=True)
        kept = sorted(index for _, _, index in sorted(places)[:count])
        self._samples = self._samples.of(kept)

    def _chance(self, text: str) -> float:
        """Return a number in [0, 1) that depends on a text and the seed."""
        return int(sha256_bytes(f"draw {self._seed} {text}".encode())[:12], 16) / 16**12

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of a sample with its media encoded."""
        sample = self._samples[index]
        if not self._prompts:
            return as_prompt(sample.turns, self._part)
        return [*(self._part(part) for part in _media(sample)), self._text(sample)]

    def answer(self, index: int) -> str:
        """Return what is to be learnt as the answer."""
        return self._samples[index].answer

    def references(self, index: int) -> list[str]:
        """Return every accepted answer."""
        sample = self._samples[index]
        return list(sample.references) or [sample.answer]

    def length(self, index: int) -> int:
        """Return the characters of all text: a proxy for the length of the sequence."""
        sample = self._samples[index]
        own = sum(len(part.text or "") for turn in sample.messages for part in turn.content)
        if not self._prompts:
            return own
        return own - sum(len(part.text or "") for part in sample.prompt) + len(self._text(sample))

    def _text(self, sample: Sample) -> str:
        """Return the sample's text in the template it draws."""
        draw = int(sha256_bytes(f"{self._seed} {sample.id}".encode())[:8], 16)
        template = self._prompts[draw % len(self._prompts)]
        said = [(part.text or "").strip() for part in sample.prompt if part.is_text]
        return template.replace(SLOT, " ".join(said))

    def _part(self, part: Part) -> str | Medium | Native:
        if part.is_text:
            return part.text or ""
        item = self.manifest.read_media(part), part.path or ""
        path = self._path or part.type
        return self._readers[path].medium(path, part.type, item)

    def _reader_of(self, modality: str) -> FeatureReader | NativeReader:
        return self._readers[self._path or modality].of(modality)


def as_prompt(turns: Sequence[Message], read: Callable[[Part], str | Medium | Native]) -> Prompt:
    """Return the turns before an answer as a prompt; a lone one of the user needs no marker."""
    if len(turns) == 1:
        return [read(part) for part in turns[0].content]
    pieces: list[str | Medium | Native | Turn] = []
    for turn in turns:
        pieces += [Turn(turn.role), *map(read, turn.content)]
    return pieces


def _media(sample: Sample) -> list[Part]:
    return [part for part in sample.prompt if not part.is_text]
