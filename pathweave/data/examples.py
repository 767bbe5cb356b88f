"""Samples with their features: what training and evaluation iterate over."""

import contextlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pathweave.data.coverage import load_coverage
from pathweave.data.manifest import Manifest, evenly_spaced
from pathweave.data.messages import Message, Part, Sample
from pathweave.data.readers import AnyReader, FeatureReader, NativeReader
from pathweave.errors import ManifestError, MediaError, PathError, RunError
from pathweave.model.prompt import Medium, Native, Prompt, Turn
from pathweave.recipe.schema import SLOT
from pathweave.storage.atomic import sha256_bytes
from pathweave.validation import unknown

LISTED = 5
KEPT = 16_384  # samples that are kept in memory; more are parsed each time they are asked for
LONG = 2000  # characters from which a sample may be too long for a language model


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
