"""Samples with their features: what training and evaluation iterate over."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from pathweave.config import SLOT, Modality, Part, unknown
from pathweave.data.cache import FeatureCache
from pathweave.data.decode import Decoder, build_decoder
from pathweave.data.manifest import Manifest
from pathweave.data.messages import Part as MessagePart
from pathweave.data.messages import Sample
from pathweave.encoders import build_encoder
from pathweave.encoders.encoder import Encoder
from pathweave.errors import ManifestError, MediaError, RunError
from pathweave.files import sha256_bytes
from pathweave.prompt import Medium, Prompt

CHUNK = 32
LISTED = 5


@dataclass(frozen=True)
class Reader:
    """How media of one modality become features: decoder, frozen encoder, cache."""

    decoder: Decoder
    encoder: Encoder
    cache: FeatureCache

    def read(self, items: list[tuple[bytes, str]]) -> list[Float[Tensor, "units tokens width"]]:
        """Return the features of media given as bytes and a name for messages."""
        return self.cache.features(self.encoder, self.decoder, items)

    def is_cached(self, data: bytes) -> bool:
        """Say whether features of these bytes are on disk."""
        return self.cache.path(self.encoder, self.decoder, data).exists()


class Readers(Mapping[str, Reader]):
    """Readers of declared modalities, each built when first used; equal encoders are shared.

    Args:
        modalities: The declarations, by name.
        cache: Where features are kept.
    """

    def __init__(self, modalities: Mapping[str, Modality], cache: FeatureCache) -> None:
        self._modalities = dict(modalities)
        self._cache = cache
        self._built: dict[str, Reader] = {}
        self._encoders: dict[str, Encoder] = {}

    def __getitem__(self, name: str) -> Reader:
        if name not in self._modalities:
            raise KeyError(name)
        if name not in self._built:
            declared = self._modalities[name]
            decoder = build_decoder(declared.decoder.kind, **declared.decoder.options)
            self._built[name] = Reader(decoder, self._encoder(declared.encoder), self._cache)
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._modalities)

    def __len__(self) -> int:
        return len(self._modalities)

    def _encoder(self, part: Part) -> Encoder:
        key = json.dumps([part.kind, part.options], sort_keys=True)
        if key not in self._encoders:
            self._encoders[key] = build_encoder(part.kind, **part.options)
        return self._encoders[key]


class Examples:
    """The usable samples of a manifest.

    Args:
        manifest: The manifest.
        readers: Readers by modality; every part type of the manifest must be one.
        path: Read every medium with this path; None reads each with that of its part type.
        limit: Use only so many samples, evenly spaced; None uses all.
        prompts: Templates, of which each sample draws one: it is put after the media instead of
            the sample's text, which takes the place of ``{}`` in it. None are given: the prompt
            stays as it is.
        seed: Seed of the draw; a sample's draw depends on its id and on nothing else.

    Raises:
        ManifestError: If the manifest cannot be read or names an undeclared modality.
    """

    def __init__(
        self,
        manifest: Path,
        readers: Mapping[str, Reader],
        path: str | None = None,
        limit: int | None = None,
        prompts: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.manifest = Manifest(manifest, on_error="collect")
        self.bad: list[str] = list(self.manifest.problems)
        self._readers = readers
        stride = 1 if limit is None else max(1, len(self.manifest) // limit)
        self._samples: list[Sample] = list(self.manifest)[::stride][:limit]
        self.total = len(self._samples) + len(self.bad)
        self._path = path
        self._prompts = prompts
        self._seed = seed
        for name in {path} if path else self.manifest.part_types:
            if name not in readers:
                what = "a part type or path"
                raise ManifestError(f"{manifest}: {unknown(what, name, ['text', *readers])}")

    def __len__(self) -> int:
        return len(self._samples)

    def sample(self, index: int) -> Sample:
        """Return the sample itself."""
        return self._samples[index]

    def encode(
        self, advance: Callable[[int], None], process: int = 0, num_processes: int = 1
    ) -> None:
        """Compute the features of this process's share that are not cached yet.

        Media that cannot be decoded are passed over here; ``keep_usable`` lists them.

        Args:
            advance: Called with the number of samples done.
            process: Which share.
            num_processes: Number of shares.
        """
        mine = self._samples[process::num_processes]
        for start in range(0, len(mine), CHUNK):
            chunk = mine[start : start + CHUNK]
            missing: dict[str, list[tuple[bytes, str]]] = {}
            for part in (part for sample in chunk for part in _media(sample)):
                try:
                    data = self.manifest.read_media(part)
                except MediaError:
                    continue
                if not self._reader(part).is_cached(data):
                    missing.setdefault(self._path_of(part), []).append((data, part.path or ""))
            for name, items in missing.items():
                _encode(self._readers[name], items)
            advance(len(chunk))

    def keep_usable(self, share: float) -> None:
        """Drop samples whose media have no features, and list why in ``bad``.

        Args:
            share: Share of bad samples, in [0, 1], above which the data are refused.

        Raises:
            RunError: If more than that are bad.
        """
        usable = []
        for sample in self._samples:
            try:
                for part in _media(sample):
                    data = self.manifest.read_media(part)
                    if not self._reader(part).is_cached(data):
                        self._reader(part).read([(data, part.path or "")])
                usable.append(sample)
            except MediaError as error:
                self.bad.append(f"{sample.id}: {error}")
        self._samples = usable
        if len(self.bad) > share * self.total or not usable:
            listed = "\n  ".join(self.bad[:LISTED])
            raise RunError(
                f"{self.manifest.path} must have at most {share:.1%} bad samples, got "
                f"{len(self.bad)} of {self.total}; mend or remove them, or raise bad_samples in "
                f"the recipe. The first:\n  {listed}"
            )

    def prompt(self, index: int) -> Prompt:
        """Return the prompt of a sample with its media encoded."""
        sample = self._samples[index]
        if not self._prompts:
            return [self._part(part) for part in sample.prompt]
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

    def _part(self, part: MessagePart) -> str | Medium:
        if part.is_text:
            return part.text or ""
        data = self.manifest.read_media(part)
        return Medium(self._path_of(part), self._reader(part).read([(data, part.path or "")])[0])

    def _path_of(self, part: MessagePart) -> str:
        return self._path or part.type

    def _reader(self, part: MessagePart) -> Reader:
        return self._readers[self._path_of(part)]


def _media(sample: Sample) -> list[MessagePart]:
    return [part for part in sample.prompt if not part.is_text]


def _encode(reader: Reader, items: list[tuple[bytes, str]]) -> None:
    """Encode together; if a medium among them is bad, one by one without it."""
    try:
        reader.read(items)
    except MediaError:
        for item in items:
            try:
                reader.read([item])
            except MediaError:
                continue
