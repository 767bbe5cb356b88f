"""Check of the manifests of a recipe, without encoding anything."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from pathweave.bases.llm import load_tokenizer, read_config
from pathweave.data.manifest import Manifest, evenly_spaced
from pathweave.data.messages import Sample
from pathweave.decoders import Decoder, build_decoder
from pathweave.errors import PathWeaveError
from pathweave.model.laid_out import context_of, too_long
from pathweave.recipe.schema import DataSet, Recipe, TestSet, TrainSet
from pathweave.train.presence import llm_directory
from pathweave.validation import unknown


@dataclass
class ManifestReport:
    """What is in one manifest.

    Attributes:
        manifest: Its file.
        samples: Rows that would be used.
        broken: Rows that cannot be parsed, or are too long for the language model.
        media: Media of the samples that are encoded; the base reads others by itself.
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


@contextmanager
def noted(problems: list[str], where: str = "") -> Iterator[None]:
    """Add an error that a user can cause to a list of problems, and go on."""
    try:
        yield
    except PathWeaveError as error:
        problems.append(f"{where}{error}")


class Manifests:
    """Reads each manifest of a recipe once, and notes what is wrong.

    Args:
        recipe: Declares the modalities, the limit of samples and the accepted share of bad ones.
        problems: Where it is noted.
        native: Kinds of media that the base reads by itself, and the kind of their decoder.
    """

    def __init__(self, recipe: Recipe, problems: list[str], native: Mapping[str, str]) -> None:
        self._recipe = recipe
        self.problems = problems
        self._reports: dict[tuple[str, str | None, int | None], ManifestReport] = {}
        self._native = {kind for kind in native if kind not in recipe.modalities}
        self._decoders: dict[str, Decoder] = {n: build_decoder(native[n]) for n in self._native}
        for name in recipe.media:
            declared, _ = recipe.modalities[name].parts
            with noted(problems, f"modalities.{name}.decoder: "):
                self._decoders[name] = build_decoder(declared.kind, **declared.options)
        self._tokenizer: PreTrainedTokenizerBase | None = None
        self._context: int | None = None
        # What is wrong with the files of the language model is told elsewhere.
        with suppress(PathWeaveError):
            directory = llm_directory(recipe)
            self._context = context_of(read_config(directory))
            self._tokenizer = load_tokenizer(directory)

    def report(self, data: DataSet) -> ManifestReport:
        """Return what is in the manifest of a data set."""
        limits = self._recipe.limit_of(data), data.draw if isinstance(data, TrainSet) else None
        limit = min((each for each in limits if each is not None), default=None)
        key = data.manifest, data.path, limit
        if key not in self._reports:
            self._reports[key] = ManifestReport(data.manifest)
            with noted(self.problems):
                self._read(self._reports[key], *key[1:])
        report = self._reports[key]
        lacking, what = report.unanswered, "an answer or references"
        if not isinstance(data, TestSet):
            lacking, what = report.unlearnable, "an answer to learn"
        elif data.metric == "ranking" and report.without_choices:
            lacking, what = report.without_choices, "choices to rank"
        if lacking:
            self.problems.append(
                f"{data.manifest} must give {what} with every sample, got {lacking:,} of "
                f"{report.samples:,} without; add them"
            )
        return report

    def _read(self, report: ManifestReport, read_with: str | None, limit: int | None) -> None:
        """Fill in the report of a manifest."""
        path = report.manifest
        manifest = Manifest(Path(path), on_error="collect")
        broken, types, licences = manifest.problems, set[str](), set[str]()
        for index in evenly_spaced(len(manifest), limit):
            sample = manifest[index]
            media = [part for part in sample.prompt if not part.is_text]
            has_answer = any(turn.role == "assistant" for turn in sample.messages)
            if problem := self._misfit(sample, sample.answer if has_answer else "", len(media)):
                broken.append(f"{sample.id}: {problem}")
                continue
            # That of the first sample is decoded.
            for part in () if report.samples else media:
                with noted(self.problems, f"{path}: the first medium: "):
                    if decode := self._decoders.get(part.type):
                        decode(manifest.read_media(part), part.path or "")
            report.samples += 1
            report.media += sum(part.type not in self._native for part in media)
            report.unlearnable += not has_answer
            report.unanswered += not (has_answer or sample.references)
            report.without_choices += not sample.choices
            types |= {part.type for part in media}
            licences.add(sample.licence or "not stated")
        report.broken, report.licences = len(broken), tuple(sorted(licences))
        total = report.samples + report.broken
        if report.broken > self._recipe.bad_samples * total:
            self.problems.append(
                f"{path} must have at most {self._recipe.bad_samples:.1%} broken rows, got "
                f"{report.broken} of {total}; mend or remove them. The first: {broken[0]}"
            )
        reads = self._recipe.modalities[read_with].reads if read_with else ()
        own = reads or (*self._recipe.modalities, *([] if read_with else sorted(self._native)))
        known = ["text", *own]
        self.problems += [
            f"{path}: {unknown('a part type', name, known)}" for name in sorted(types - {*known})
        ]

    def _misfit(self, sample: Sample, answer: str, media: int) -> str | None:
        """Return why the language model, if it is known, cannot read a sample, else None."""
        if self._tokenizer is None or self._context is None:
            return None
        # At the least: how many frames a medium has is known when it is decoded.
        soft = media * self._recipe.method.queries
        asked = " ".join(part.text or "" for part in sample.prompt if part.is_text)
        # A token is a character at least, or a few that the tokenizer does not know.
        if soft + len(asked.encode()) + len(answer.encode()) < self._context:
            return None
        asked_for, said = (
            len(self._tokenizer.encode(text, add_special_tokens=False)) for text in (asked, answer)
        )
        return too_long(soft + asked_for, said + 1, self._context)
