"""From a declaration and a root to samples, one by one, with what became of every other one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pathweave.data.messages import Message, Part, Sample
from pathweave.datasets.declaration import Dataset
from pathweave.datasets.entries import Entries
from pathweave.datasets.entry import Entry
from pathweave.datasets.media_paths import is_file, prefix_of
from pathweave.datasets.patterns import fill, fill_path
from pathweave.datasets.records import Advance
from pathweave.datasets.templates import class_answer, draw, instruction
from pathweave.datasets.text import normalise_caption, normalise_question
from pathweave.errors import ManifestError, MediaError
from pathweave.storage.atomic import sha256_bytes

Kind = Literal["usable", "missing", "broken", "flawed", "left_out"]


@dataclass(frozen=True)
class FoundMedium:
    """A medium on disk, or an array that stands in the annotation file.

    Args:
        decoder: Kind of the decoder that reads it.
        file: The file, if it is one.
        array: The array, if it is one.
        name: What it is called in messages, and its key where it is an array.
    """

    decoder: str
    name: str
    file: Path | None = None
    array: Any = None


@dataclass(frozen=True)
class Row:
    """What became of one annotated sample.

    Args:
        place: File and row of the annotation.
        kind: ``usable``; ``missing``: a medium is not on disk; ``broken``: the annotation cannot be
            used; ``flawed``: a record cannot be used that is no sample of its own;
            ``left_out``: the data set is declared without it.
        reason: Why it is not usable.
        sample: The sample, if it is usable.
        media: Its media, companions among them.
        count: For how many samples it stands.
    """

    place: str
    kind: Kind
    reason: str = ""
    sample: Sample | None = None
    media: tuple[FoundMedium, ...] = ()
    count: int = 1


class Reader:
    """Reads one split of a data set.

    Memory: one record at a time. In splits that are scored, also eight bytes a sample (with their
    overhead about 120) to find ids that occur twice; where the declaration groups or joins records,
    the groups or the joined table; where media stand in the annotation file, that file.

    Args:
        dataset: The declaration.
        split: Name of the split.
        root: The directory below which all data sets are.
        base: Directory that the paths of media are to be relative to; None is the root.
        store: What arrays of the annotation file are called in samples (``STORE#KEY``).
        seed: Seed of drawn instructions, labels and rounds of conversations.
        evaluation: The way of scoring that candidate answers are for; None is the first.

    Raises:
        ManifestError: If a table that the annotations refer to cannot be read, or the path to the
            root is not UTF-8.
        RecipeError: If there is no way of scoring of that name.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        root: Path,
        base: Path | None = None,
        store: str = "media.parquet",
        seed: int = 0,
        evaluation: str | None = None,
    ) -> None:
        how = dataset.scoring(evaluation)
        self._answer = how.candidates if how else "{}"
        self._dataset, self._name, self._split = dataset, split, dataset.splits[split]
        self._root, self._store, self._seed = root, store, seed
        self._prefix = prefix_of(root, base or root)
        self._entries = Entries(dataset, split, root, seed)
        # In a split to learn from each field of targets is a sample of its own.
        self._per_record = max(1, len(self._split.targets)) if self._split.learn else 1
        self._ids: set[bytes] = set()

    def read(self, advance: Advance = lambda _: None) -> Iterator[Row]:
        """Yield a row for every annotated sample, in the order of the annotations.

        Args:
            advance: Called with the number of bytes of annotations read since the last call.

        Raises:
            ManifestError: If an annotation file cannot be read; what came before it was sound.
        """
        self._ids.clear()
        for entry in self._entries.read(advance):
            if unusable := unusable_row(entry):
                yield replace(unusable, count=self._per_record)
            elif self._split.learn:
                yield from self._to_learn(entry)
            else:
                yield self._row(entry, self._scored)

    def _to_learn(self, entry: Entry) -> Iterator[Row]:
        row, targets = entry.values["row"], entry.targets
        if self._dataset.task == "classification":
            targets = (draw(targets, self._seed, f"{row} label"),)
        for number, target in enumerate(targets):
            sample_id = f"{row}" if len(targets) == 1 else f"{row}-{number + 1}"
            yield self._row(entry, partial(self._learnt, sample_id=sample_id, target=target))

    def _row(self, entry: Entry, build: Callable[..., dict[str, Any]]) -> Row:
        try:
            fields = build(entry)
            found, parts = self._media(entry.values, fields["id"])
            shown = fill(self._split.object, entry.values)[0] if self._split.object else None
        except _MissingError as error:
            return Row(entry.place, "missing", str(error))
        except MediaError as error:
            return Row(entry.place, "broken", str(error))
        except ManifestError as error:
            return broken_row(entry.place, str(error))
        question, answer = fields.pop("question"), fields.pop("answer")
        asked = [*parts, Part(type="text", text=question)]
        sample = Sample(
            messages=(
                Message(role="user", content=tuple(asked)),
                Message(role="assistant", content=(Part(type="text", text=answer),)),
            ),
            object=shown,
            source=self._dataset.title,
            licence=self._dataset.licence or self._dataset.terms,
            **fields,
        )
        return Row(entry.place, "usable", "", sample, found)

    def _scored(self, entry: Entry) -> dict[str, Any]:
        """Return the fields of a sample to be scored on."""
        sample_id = fill(self._split.id, entry.values)[0]
        digest = bytes.fromhex(sha256_bytes(sample_id.encode())[:16])
        if digest in self._ids:
            raise ManifestError(f"ids must be unique, got {sample_id!r:.80} twice")
        self._ids.add(digest)
        targets = tuple(self._label(target) for target in entry.targets)
        return {
            "id": sample_id,
            "question": self._dataset.prompt.replace("{}", normalise_question(entry.question)),
            "answer": targets[0],
            "references": targets,
            "choices": tuple(self._answer.format(name) for name in self._dataset.labels),
        }

    def _label(self, target: str) -> str:
        labels = self._dataset.labels
        if not labels:
            return target
        for name in (target, target.replace("_", " ")):
            if name in labels:
                return self._answer.format(name)
        raise ManifestError(f"a label must be one of {', '.join(labels)}, got {target!r}")

    def _learnt(self, entry: Entry, sample_id: str, target: str) -> dict[str, Any]:
        """Return the fields of a sample to learn from."""
        task, modality = self._dataset.task, self._split.media[0].modality
        answer = target
        if task == "caption":
            answer = normalise_caption(target)
        elif task == "classification":
            answer = class_answer(target, modality, self._seed, sample_id)
        if not answer:
            raise ManifestError(f"a target must hold words, got {target!r:.60}")
        question = instruction(task, modality, entry.question, self._seed, sample_id)
        return {"id": sample_id, "question": question, "answer": answer}

    def _media(
        self, values: Mapping[str, Any], sample_id: str
    ) -> tuple[tuple[FoundMedium, ...], list[Part]]:
        found: list[FoundMedium] = []
        parts = []
        for medium in self._split.media:
            if medium.field:
                array = values.get(medium.field)
                found.append(FoundMedium(medium.decoder, sample_id, array=array))
                parts.append(Part(type=medium.modality, path=f"{self._store}#{sample_id}"))
                continue
            path = self._find(medium.paths, values)
            found.append(FoundMedium(medium.decoder, path, self._root / path))
            fields = {"path": self._prefix + path}
            if medium.companion:
                beside = self._find(medium.companion, values)
                found.append(FoundMedium("picture", beside, self._root / beside))
                fields["companion"] = self._prefix + beside
            parts.append(Part(type=medium.modality, **fields))
        return tuple(found), parts

    def _find(self, patterns: tuple[str, ...], values: Mapping[str, Any]) -> str:
        paths = fill_path(patterns, values)
        for path in paths:
            if is_file(self._root / path):
                return path
        raise _MissingError(f"no file {' or '.join(paths)}")


class _MissingError(Exception):
    """A medium is not on disk."""


def unusable_row(entry: Entry) -> Row | None:
    """Return the row of an entry that is no sample, or None."""
    if entry.problem:
        return broken_row(entry.place, entry.problem)
    if entry.flaw:
        return replace(broken_row(entry.place, entry.flaw), kind="flawed")
    return Row(entry.place, "left_out", entry.left_out) if entry.left_out else None


def broken_row(place: str, problem: str, count: int = 1) -> Row:
    """Return the row of an annotation that cannot be used, with the remedy."""
    return Row(place, "broken", f"{problem}; correct the row or remove it", count=count)
