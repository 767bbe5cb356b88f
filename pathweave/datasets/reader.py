"""Reader of one split of a declared data set: from its annotation files to samples, one by one."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count, pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pathweave.data.messages import Message, Part, Sample
from pathweave.datasets.declaration import Dataset
from pathweave.datasets.media_files import FoundMedium, MissingError, is_file, prefix_of
from pathweave.datasets.patterns import ADDED, fill, fill_path
from pathweave.datasets.points import read_points
from pathweave.datasets.records import (
    Advance,
    Keyed,
    Record,
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
        ManifestError: If the path to the root is not UTF-8.
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
        self._dataset, self._name, self._split = dataset, split, dataset.splits[split]
        self._root, self._store, self._seed = root, store, seed
        self._prefix = prefix_of(root, base or root)
        how = dataset.scoring(evaluation)
        candidate = how.candidates if how else "{}"
        self._answers = {label: candidate.format(label) for label in dataset.labels}
        self._joined: Keyed = {}, []
        self._words: Keyed = {}, []
        self._named: set[str] = set()
        self._ids: set[bytes] = set()

    def read(self, advance: Advance = lambda _: None) -> Iterator[Record]:
        """Yield every annotated sample, in the order of the annotations, and what is wrong.

        Args:
            advance: Called with the number of KiB of annotations read since the last call.

        Raises:
            ManifestError: If a file cannot be read; what came before it was sound.
        """
        split, root = self._split, self._root
        self._ids.clear()
        self._named.clear()
        if join := split.join:
            file = root / (split.files[join.file] if join.file else split.records[0])
            self._joined = read_table(file, join.key, join.list)
        if lookup := split.lookup:
            self._words = read_table(root / split.files[lookup.file], lookup.key)
        records = self._asked(advance)
        if split.group and not split.learn:
            records = grouped(records, split.group)
        for record in chain(self._joined[1], self._words[1], records):
            if record.kind != "usable":
                yield record
            elif why := split.keep.leaves_out(record.targets):
                yield replace(record, kind="left_out", reason=why)
            else:
                yield from self._samples(record)
        if join and join.unnamed:
            for key in filter(lambda key: key not in self._named, self._joined[0]):
                yield Record(f"{file}, {join.key} {key}", kind="left_out", reason=join.unnamed)

    def _asked(self, advance: Advance) -> Iterator[Record]:
        """Yield the records with their question and their targets, before any medium is sought."""
        split, rows = self._split, count(1)
        for path in split.records:
            file = self._root / path
            if split.format == "points_pickle":
                found = read_points(file, *(self._root / split.files[x] for x in ("names", "ids")))
            else:
                found = read_records(file, split, advance)
            for record, row in zip(found, rows, strict=False):
                # Also of what is broken the group may be known.
                record.values.update(zip(ADDED, (self._name, row, file.parent.name), strict=True))
                # In a split to learn from each field of targets is a sample of its own.
                record.count = max(1, len(split.targets)) if split.learn else 1
                try:
                    yield from self._ask(record) if record.kind == "usable" else [record]
                except ManifestError as error:
                    yield record.fail(error)

    def _ask(self, record: Record) -> Iterator[Record]:
        """Yield a record with its question and its targets, and those that are blank apart."""
        split = self._split
        if split.join:
            key = find(record.values, split.join.by)[0]
            self._named.add(key)
            if key not in self._joined[0]:
                rule = f"{split.join.by} must name one record of {split.join.list!r}"
                raise ManifestError(f"{rule}, got {key!r}")
            record.values = {**self._joined[0][key], **record.values}
        values = record.values
        if any(find(values, name) != [wanted] for name, wanted in split.where.items()):
            return
        if split.turns:
            record.question, answer = self._round(values.get(split.turns), values["row"])
            record.targets = (answer,)
            yield record
            return
        if split.question:
            record.question = _plain(" ".join(find(values, split.question)))
        found = [(name, value) for name in split.targets for value in values_at(values, name)]
        # One that left its field blank said nothing; the others did.
        blank = [pair for pair in found if pair[1] is None or not str(pair[1]).strip()]
        said = [pair for pair in found if pair not in blank] or found
        record.targets = self._translated([text_of(value, name) for name, value in said])
        yield record
        for name, value in blank:
            problem = f"the field {name!r} must hold text, got {value!r}"
            flaw = record.fail(problem, "broken" if split.learn else "flawed")
            yield replace(flaw, count=1)

    def _round(self, turns: object, row: int) -> tuple[str, str]:
        """Return a question and its answer out of a conversation."""
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise ManifestError(f"{self._split.turns!r} must be a list of turns, got {turns!r:.60}")
        said = [(turn.get("from"), _plain(turn.get("value"))) for turn in turns]
        rounds = [
            (question, answer)
            for (asks, question), (answers, answer) in pairwise(said)
            if (asks, answers) == ("human", "gpt") and answer
        ]
        if not rounds:
            raise ManifestError(f"turns must hold a question and an answer, got {turns!r:.60}")
        is_short = len(turns) <= _SHORT_CONVERSATION
        return rounds[0] if is_short else draw(rounds, self._seed, f"{row} round")

    def _translated(self, targets: list[str]) -> tuple[str, ...]:
        """Return targets in words, each as one or several accepted answers."""
        split, words = self._split, self._words[0]
        if split.lookup:
            codes = [code.strip() for target in targets for code in target.split(",")]
            if unknown := [code for code in codes if code not in words]:
                file = split.files[split.lookup.file]
                raise ManifestError(f"a code must be in {file}, got {unknown[0]!r}")
            targets = [find(words[code], split.lookup.value)[0] for code in codes]
        strange = [target for target in targets if target not in split.translate]
        if split.only_translated and strange:
            listed = ", ".join(split.translate)
            raise ManifestError(f"a target must be one of {listed}, got {strange[0]!r:.60}")
        return tuple(word for target in targets for word in split.translate.get(target, (target,)))

    def _samples(self, record: Record) -> Iterator[Record]:
        """Yield the sample of a record to be scored, or one for each target to be learnt."""
        dataset, split, row = self._dataset, self._split, record.values["row"]
        targets = record.targets if split.learn else record.targets[:1]
        if split.learn and dataset.task == "classification":
            targets = (draw(targets, self._seed, f"{row} label"),)
        for number, target in enumerate(targets, start=1):
            built = replace(record, count=1)
            try:
                if split.learn:
                    sample_id = f"{row}" if len(targets) == 1 else f"{row}-{number}"
                    question, *said = self._to_learn(record.question, target, sample_id)
                else:
                    sample_id = fill(split.id, record.values)[0]
                    question, *said = self._to_score(record, sample_id)
                built.media, parts = self._media(record.values, sample_id)
                asked, answer = (Part(type="text", text=text) for text in (question, said[0]))
                built.sample = Sample(
                    id=sample_id,
                    messages=(
                        Message(role="user", content=(*parts, asked)),
                        Message(role="assistant", content=(answer,)),
                    ),
                    references=() if split.learn else tuple(said),
                    choices=() if split.learn else tuple(self._answers.values()),
                    object=fill(split.object, record.values)[0] if split.object else None,
                    source=dataset.title,
                    licence=dataset.licence or dataset.terms or None,
                )
            except (ManifestError, MediaError, ValidationError) as error:
                built = built.fail(error)
            yield built

    def _to_learn(self, question: str, target: str, sample_id: str) -> tuple[str, str]:
        """Return an instruction and the answer that is learnt."""
        task, modality, answer = self._dataset.task, self._split.media[0].modality, target
        if task == "caption":
            answer = normalise_caption(target)
        elif task == "classification":
            answer = class_answer(target, modality, self._seed, sample_id)
        if not answer:
            raise ManifestError(f"a target must hold words, got {target!r:.60}")
        return instruction(task, modality, question, self._seed, sample_id), answer

    def _to_score(self, record: Record, sample_id: str) -> tuple[str, ...]:
        """Return what is asked and the accepted answers, of an id that is new."""
        digest = bytes.fromhex(sha256_bytes(sample_id.encode())[:16])
        if digest in self._ids:
            raise ManifestError(f"ids must be unique, got {sample_id!r:.80} twice")
        self._ids.add(digest)
        asked, labels = normalise_question(record.question), self._answers
        said = [
            labels.get(target) or labels.get(target.replace("_", " ")) if labels else target
            for target in record.targets
        ]
        if None in said:
            strange = record.targets[said.index(None)]
            raise ManifestError(f"a label must be one of {', '.join(labels)}, got {strange!r}")
        return self._dataset.prompt.replace("{}", asked), *map(str, said)

    def _media(
        self, values: dict[str, Any], sample_id: str
    ) -> tuple[tuple[FoundMedium, ...], list[Part]]:
        found, parts = [], []
        for medium in self._split.media:
            places = {}
            if medium.field:
                found.append(FoundMedium(medium.decoder, sample_id, array=values[medium.field]))
                places["path"] = f"{self._store}#{sample_id}"
            for field, patterns in (("path", medium.paths), ("companion", medium.companion)):
                if patterns:
                    paths = fill_path(patterns, values)
                    path = next((path for path in paths if is_file(self._root / path)), None)
                    if path is None:
                        raise MissingError(f"no file {' or '.join(paths)}")
                    decoder = medium.decoder if field == "path" else "picture"
                    found.append(FoundMedium(decoder, path, self._root / path))
                    places[field] = self._prefix + path
            parts.append(Part(type=medium.modality, **places))
        return tuple(found), parts


def _plain(value: object) -> str:
    """Return what was said, without the places of media and line breaks."""
    return " ".join(str(value or "").replace("<image>", " ").split())
