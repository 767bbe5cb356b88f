"""Reader of one split of a declared data set: from its annotation files to samples, one by one."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from pathweave.data.messages import Part, Sample
from pathweave.datasets.declaration import Dataset
from pathweave.datasets.media import FoundMedium, is_file, prefix_of
from pathweave.datasets.patterns import ADDED, fill, fill_path
from pathweave.datasets.points import read_points
from pathweave.datasets.records import (
    Advance,
    Keyed,
    Record,
    conversation,
    find,
    grouped,
    read_records,
    read_table,
    text_of,
    values_at,
)
from pathweave.datasets.templates import (
    class_answer,
    draw,
    instruction,
    normalise_caption,
    normalise_question,
)
from pathweave.errors import ManifestError, MediaError
from pathweave.storage.atomic import sha256_bytes

# Above this many messages one round of a conversation is drawn, else the first is taken.
_SHORT_CONVERSATION = 3


class SplitReader:
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
        self._joined: Keyed = {}, []
        self._words: Keyed = {}, []
        if join := self._split.join:
            file = self._split.files[join.file] if join.file else self._split.records[0]
            self._joined = read_table(root / file, join.key, join.list)
        if lookup := self._split.lookup:
            self._words = read_table(root / self._split.files[lookup.file], lookup.key)
        # In a split to learn from each field of targets is a sample of its own.
        self._per_record = max(1, len(self._split.targets)) if self._split.learn else 1
        self._ids: set[bytes] = set()

    def read(self, advance: Advance = lambda _: None) -> Iterator[Record]:
        """Yield every annotated sample, in the order of the annotations, and what is wrong.

        Args:
            advance: Called with the number of KiB of annotations read since the last call.

        Raises:
            ManifestError: If an annotation file cannot be read; what came before it was sound.
        """
        self._ids.clear()
        records = self._asked(advance)
        if self._split.group and not self._split.learn:
            records = grouped(records, self._split.group)
        for record in chain(self._joined[1], self._words[1], records):
            if record.kind == "usable" and (why := self._left_out(record.targets)):
                yield replace(record, kind="left_out", reason=why, count=self._per_record)
            elif record.kind != "usable":
                yield record
            elif self._split.learn:
                yield from self._to_learn(record)
            else:
                yield self._with_sample(record, self._scored)

    def _asked(self, advance: Advance) -> Iterator[Record]:
        """Yield the records with their question and their targets, before any medium is sought."""
        row = 0
        for path in self._split.records:
            file = self._root / path
            if self._split.format == "points_pickle":
                others = (self._root / self._split.files[role] for role in ("names", "ids"))
                records = read_points(file, *others)
            else:
                records = read_records(file, self._split, advance)
            for record in records:
                row += 1
                extra = dict(zip(ADDED, (self._name, row, file.parent.name), strict=True))
                # Also of what is broken the group may be known.
                known = replace(record, values={**record.values, **extra})
                try:
                    yield from self._with_targets(known)
                except ManifestError as error:
                    yield replace(known.broken(error), count=self._per_record)

    def _with_targets(self, record: Record) -> Iterator[Record]:
        split = self._split
        if record.kind != "usable":
            yield replace(record, count=self._per_record)
            return
        if split.join:
            key = find(record.values, split.join.by)[0]
            if key not in self._joined[0]:
                rule = f"{split.join.by} must name one record of {split.join.list!r}"
                raise ManifestError(f"{rule}, got {key!r}")
            record = replace(record, values={**self._joined[0][key], **record.values})
        values = record.values
        if any(find(values, name) != [wanted] for name, wanted in split.where.items()):
            return
        if split.turns:
            question, answer = self._round(values.get(split.turns), f"{values['row']}")
            yield replace(record, question=question, targets=(answer,))
            return
        asked = find(values, split.question) if split.question else []
        found = [(name, value) for name in split.targets for value in values_at(values, name)]
        # One that left its field blank said nothing; the others did.
        blank = [(n, v) for n, v in found if v is None or (isinstance(v, str) and not v.strip())]
        said = [pair for pair in found if pair not in blank] or found
        targets = tuple(self._translated([text_of(value, name) for name, value in said]))
        yield replace(record, question=_plain(" ".join(asked)), targets=targets)
        for name, value in blank:
            problem = f"the field {name!r} must hold text, got {value!r}"
            yield record.broken(problem, "broken" if split.learn else "flawed")

    def _translated(self, targets: list[str]) -> Iterator[str]:
        if lookup := self._split.lookup:
            codes = [code.strip() for target in targets for code in target.split(",")]
            words = self._words[0]
            if unknown := [code for code in codes if code not in words]:
                file = self._split.files[lookup.file]
                raise ManifestError(f"a code must be in {file}, got {unknown[0]!r}")
            targets = [find(words[code], lookup.value)[0] for code in codes]
        translate = self._split.translate
        for target in targets:
            if self._split.only_translated and target not in translate:
                raise ManifestError(
                    f"a target must be one of {', '.join(translate)}, got {target!r:.60}"
                )
            yield from translate.get(target, (target,))

    def _round(self, turns: object, drawn_by: str) -> tuple[str, str]:
        """Return a question and its answer out of a conversation."""
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise ManifestError(f"{self._split.turns!r} must be a list of turns, got {turns!r:.60}")
        said = [(turn.get("from"), _plain(turn.get("value"))) for turn in turns]
        rounds = [
            (question, answer)
            for (asks, question), (answers, answer) in pairwise(said)
            if asks == "human" and answers == "gpt" and answer
        ]
        if not rounds:
            raise ManifestError(
                f"a conversation must hold a question and an answer, got {turns!r:.60}"
            )
        if len(turns) <= _SHORT_CONVERSATION:
            return rounds[0]
        numbers = [str(number) for number in range(len(rounds))]
        return rounds[int(draw(numbers, self._seed, f"{drawn_by} round"))]

    def _left_out(self, targets: tuple[str, ...]) -> str:
        """Return why a sample does not count, as declared, or an empty text."""
        keep = self._split.keep
        if banned := [target for target in targets if target in keep.without]:
            return f"the answer {banned[0]!r} does not count here"
        if found := [w for w in keep.not_containing if any(w in target for target in targets)]:
            return f"an answer that contains {found[0]!r} does not count here"
        differ = keep.unanimous and len(set(targets)) > 1
        return "answers that differ do not count here" * differ

    def _to_learn(self, record: Record) -> Iterator[Record]:
        row, targets = record.values["row"], record.targets
        if self._dataset.task == "classification":
            targets = (draw(targets, self._seed, f"{row} label"),)
        for number, target in enumerate(targets):
            sample_id = f"{row}" if len(targets) == 1 else f"{row}-{number + 1}"
            yield self._with_sample(
                record, partial(self._learnt, sample_id=sample_id, target=target)
            )

    def _with_sample(self, record: Record, build: Callable[..., dict[str, Any]]) -> Record:
        try:
            fields = build(record)
            found, parts = self._media(record.values, fields["id"])
            shown = fill(self._split.object, record.values)[0] if self._split.object else None
        except _MissingError as error:
            return replace(record, kind="missing", reason=str(error))
        except MediaError as error:
            return replace(record, kind="broken", reason=str(error))
        except ManifestError as error:
            return record.broken(error)
        sample = Sample(
            messages=conversation(parts, fields.pop("question"), fields.pop("answer")),
            object=shown,
            source=self._dataset.title,
            licence=self._dataset.licence or self._dataset.terms,
            **fields,
        )
        return replace(record, sample=sample, media=found)

    def _scored(self, record: Record) -> dict[str, Any]:
        """Return the fields of a sample to be scored on."""
        sample_id = fill(self._split.id, record.values)[0]
        digest = bytes.fromhex(sha256_bytes(sample_id.encode())[:16])
        if digest in self._ids:
            raise ManifestError(f"ids must be unique, got {sample_id!r:.80} twice")
        self._ids.add(digest)
        targets = tuple(self._label(target) for target in record.targets)
        return {
            "id": sample_id,
            "question": self._dataset.prompt.replace("{}", normalise_question(record.question)),
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

    def _learnt(self, record: Record, sample_id: str, target: str) -> dict[str, Any]:
        """Return the fields of a sample to learn from."""
        task, modality = self._dataset.task, self._split.media[0].modality
        answer = target
        if task == "caption":
            answer = normalise_caption(target)
        elif task == "classification":
            answer = class_answer(target, modality, self._seed, sample_id)
        if not answer:
            raise ManifestError(f"a target must hold words, got {target!r:.60}")
        question = instruction(task, modality, record.question, self._seed, sample_id)
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


def _plain(value: object) -> str:
    """Return what was said, without the places of media and line breaks."""
    return " ".join(str(value or "").replace("<image>", " ").split())
