"""Check of the manifests of a recipe, without encoding anything."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pathweave.data.decode import Decoder, build_decoder
from pathweave.data.manifest import Manifest, evenly_spaced
from pathweave.data.messages import Part, Sample
from pathweave.errors import PathWeaveError
from pathweave.model.pathweave import too_long
from pathweave.recipe.schema import DataSet, Recipe, TestSet
from pathweave.validation import unknown


@dataclass(frozen=True)
class ManifestReport:
    """What is in one manifest.

    Attributes:
        manifest: Its file.
        samples: Rows that would be used.
        broken: Rows that cannot be parsed, or are too long for the language model.
        media: Media of the samples.
        licences: Licences of the samples.
        unanswered: Samples with neither an answer nor references.
        unlearnable: Samples without an answer.
        without_choices: Samples without candidates to rank.
    """

    manifest: str
    samples: int = 0
    broken: int = 0
    media: int = 0
    licences: tuple[str, ...] = ()
    unanswered: int = 0
    unlearnable: int = 0
    without_choices: int = 0


@dataclass(frozen=True)
class Reading:
    """How the language model reads text.

    Attributes:
        tokenizer: Its tokenizer.
        context: Most tokens that it can read.
    """

    tokenizer: PreTrainedTokenizerBase
    context: int

    def misfit(self, sample: Sample, soft: int) -> str | None:
        """Return why a sample whose media become ``soft`` tokens is too long, else None."""
        asked = " ".join(part.text or "" for part in sample.prompt if part.is_text)
        answered = [turn for turn in sample.messages if turn.role == "assistant"]
        said = sample.answer if answered else ""
        # A token is a character at least, or a few that the tokenizer does not know.
        if soft + len(asked.encode()) + len(said.encode()) < self.context:
            return None
        prompt, answer = (
            len(self.tokenizer.encode(t, add_special_tokens=False)) for t in (asked, said)
        )
        return too_long(soft + prompt, answer + 1, self.context)


class Manifests:
    """Reads each manifest of a recipe once, and notes what is wrong.

    Args:
        recipe: Declares the modalities, the limit of samples and the accepted share of bad ones.
        reading: How the language model reads text; None if that is not known.
    """

    def __init__(self, recipe: Recipe, reading: Reading | None = None) -> None:
        self._reading = reading
        self.problems: list[str] = []
        self._recipe = recipe
        self._decoders: dict[str, Decoder] = {}
        self._reports: dict[tuple[str, str | None, int | None], ManifestReport] = {}
        for name in recipe.media:
            declared, _ = recipe.modalities[name].parts
            try:
                self._decoders[name] = build_decoder(declared.kind, **declared.options)
            except PathWeaveError as error:
                self.problems.append(f"modalities.{name}.decoder: {error}")

    def report(self, data: DataSet) -> ManifestReport:
        """Return what is in the manifest of a data set."""
        key = data.manifest, data.path, self._recipe.limit_of(data)
        if key not in self._reports:
            self._reports[key] = self._read(*key)
        report = self._reports[key]
        lacking, what = _needed(data, report)
        if lacking:
            self.problems.append(
                f"{data.manifest} must give {what} with every sample, got {lacking:,} of "
                f"{report.samples:,} without; add them"
            )
        return report

    def _read(self, path: str, read_with: str | None, limit: int | None) -> ManifestReport:
        try:
            manifest = Manifest(Path(path), on_error="collect")
        except PathWeaveError as error:
            self.problems.append(str(error))
            return ManifestReport(path)
        broken = manifest.problems
        samples, media = 0, 0
        types, licences, lacking = set[str](), set[str](), Counter[str]()
        for index in evenly_spaced(len(manifest), limit):
            sample = manifest[index]
            parts = [part for part in sample.prompt if not part.is_text]
            # At the least: how many frames a medium has is known when it is decoded.
            soft = len(parts) * self._recipe.method.queries
            if self._reading is not None and (problem := self._reading.misfit(sample, soft)):
                broken.append(f"{sample.id}: {problem}")
                continue
            if not samples:
                self._check_first(manifest, parts)
            samples += 1
            media += len(parts)
            types |= {part.type for part in parts}
            licences.add(sample.licence or "not stated")
            lacking += Counter(_lacking(sample))
        self._check_broken(path, broken, samples)
        self._check_types(path, types, read_with)
        about = tuple(sorted(licences))
        return ManifestReport(path, samples, len(broken), media, about, **lacking)

    def _check_broken(self, path: str, broken: list[str], samples: int) -> None:
        total = samples + len(broken)
        if len(broken) > self._recipe.bad_samples * total:
            self.problems.append(
                f"{path} must have at most {self._recipe.bad_samples:.1%} broken rows, got "
                f"{len(broken)} of {total}; mend or remove them. The first: {broken[0]}"
            )

    def _check_types(self, path: str, types: set[str], read_with: str | None) -> None:
        reads = self._recipe.modalities[read_with].reads if read_with else ()
        known = ["text", *(reads or self._recipe.modalities)]
        self.problems += [
            f"{path}: {unknown('a part type', name, known)}" for name in sorted(types - {*known})
        ]

    def _check_first(self, manifest: Manifest, parts: list[Part]) -> None:
        """Decode the media of the first sample."""
        for part in parts:
            if part.type not in self._decoders:
                continue
            try:
                self._decoders[part.type](manifest.read_media(part), part.path or "")
            except PathWeaveError as error:
                self.problems.append(f"{manifest.path}: the first medium: {error}")


def _needed(data: DataSet, report: ManifestReport) -> tuple[int, str]:
    """Return how many samples lack what the data set is used for, and what that is."""
    if not isinstance(data, TestSet):
        return report.unlearnable, "an answer to learn"
    if data.metric == "ranking" and report.without_choices:
        return report.without_choices, "choices to rank"
    return report.unanswered, "an answer or references"


def _lacking(sample: Sample) -> Iterator[str]:
    has_answer = any(message.role == "assistant" for message in sample.messages)
    if not has_answer:
        yield "unlearnable"
    if not has_answer and not sample.references:
        yield "unanswered"
    if not sample.choices:
        yield "without_choices"
