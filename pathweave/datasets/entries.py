"""From the records of a split to questions and targets, before any medium is sought."""

from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from pathweave.datasets.declaration import Dataset, Split
from pathweave.datasets.entry import Entry, grouped
from pathweave.datasets.patterns import ADDED, names
from pathweave.datasets.points import read_points
from pathweave.datasets.records import Advance, Record, read_records
from pathweave.datasets.tables import Table, read_table
from pathweave.datasets.templates import draw
from pathweave.errors import ManifestError

# Above this many messages one round of a conversation is drawn, else the first is taken.
_SHORT_CONVERSATION = 3


class Entries:
    """The entries of a split; joined tables and, where records are grouped, groups are in memory.

    Args:
        dataset: The data set.
        name: Name of the split.
        root: Where its files are.
        seed: Seed of what is drawn.

    Raises:
        ManifestError: If a table to be joined cannot be read.
    """

    def __init__(self, dataset: Dataset, name: str, root: Path, seed: int) -> None:
        self._split = dataset.splits[name]
        self._name, self._root, self._seed = name, root, seed
        self._joined, self._words = Table(), Table()
        if join := self._split.join:
            role = join.file
            file = self._split.files[role] if role else self._split.records[0]
            self._joined = read_table(root / file, join.key, join.list)
        if lookup := self._split.lookup:
            self._words = read_table(root / self._split.files[lookup.file], lookup.key)

    def read(self, advance: Advance) -> Iterator[Entry]:
        """Yield the entries in the order of their records.

        Args:
            advance: Called with the number of bytes read since the last call.

        Raises:
            ManifestError: If an annotation file cannot be read.
        """
        entries = self._ungrouped(advance)
        if self._split.group and not self._split.learn:
            entries = grouped(entries, self._split.group)
        for entry in chain(self._joined.flaws, self._words.flaws, entries):
            yield _kept(entry, self._split)

    def _ungrouped(self, advance: Advance) -> Iterator[Entry]:
        row = 0
        for path in self._split.records:
            file = self._root / path
            for record in self._records(file, advance):
                row += 1
                extra = dict(zip(ADDED, (self._name, row, file.parent.name), strict=True))
                try:
                    entry = self._entry(record, extra)
                except ManifestError as error:
                    values = {**record.values, **extra}
                    entry = Entry(record.place, values, problem=str(error))
                if entry is not None:
                    yield entry

    def _records(self, file: Path, advance: Advance) -> Iterator[Record]:
        if self._split.format == "points_pickle":
            names, ids = (self._root / self._split.files[role] for role in ("names", "ids"))
            return read_points(file, names, ids)
        return read_records(file, self._split, advance)

    def _entry(self, record: Record, extra: Mapping[str, Any]) -> Entry | None:
        if record.problem:
            return Entry(record.place, problem=record.problem)
        values = {**self._partner(record.values), **record.values, **extra}
        if any(find(values, name) != [wanted] for name, wanted in self._split.where.items()):
            return None
        if self._split.turns:
            question, answer = self._round(values, f"{extra['row']}")
            return Entry(record.place, values, question, (answer,))
        asked = find(values, self._split.question) if self._split.question else []
        question = _plain(" ".join(asked))
        targets = [text for name in self._split.targets for text in find(values, name)]
        return Entry(record.place, values, question, tuple(self._translated(targets)))

    def _partner(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        join = self._split.join
        if join is None:
            return {}
        key = find(values, join.by)[0]
        if key not in self._joined.records:
            raise ManifestError(f"{join.by} must name one record of {join.list!r}, got {key!r}")
        return self._joined.records[key]

    def _translated(self, targets: list[str]) -> Iterator[str]:
        if lookup := self._split.lookup:
            codes = [code.strip() for target in targets for code in target.split(",")]
            words = self._words.records
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

    def _round(self, values: Mapping[str, Any], drawn_by: str) -> tuple[str, str]:
        turns = values.get(self._split.turns or "")
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


def find(values: Mapping[str, Any], path: str) -> list[str]:
    """Return the texts at a path of fields; lists on the way are gone through.

    Raises:
        ManifestError: If a field is missing, or holds nothing or no text.

    Example:
        >>> find({"answers": [{"answer": "yes"}, {"answer": "no"}]}, "answers.answer")
        ['yes', 'no']
    """
    found: list[Any] = [values]
    for step in path.split("."):
        inner: list[Any] = []
        for value in found:
            if not isinstance(value, Mapping) or step not in value:
                found_names = names(value) if isinstance(value, Mapping) else f"{value!r:.60}"
                raise ManifestError(f"a record must have the field {path!r}, got {found_names}")
            inner.extend(value[step] if isinstance(value[step], list) else [value[step]])
        found = inner
    texts = [_text(value, path) for value in found]
    if not texts:
        raise ManifestError(f"the field {path!r} must hold at least one text, got an empty list")
    return texts


def _text(value: object, path: str) -> str:
    # JSON has true and NaN, too, which are no answers.
    is_number = type(value) is int or (isinstance(value, float) and isfinite(value))
    if not is_number and not (isinstance(value, str) and value.strip()):
        raise ManifestError(f"the field {path!r} must hold text, got {value!r:.60}")
    return str(value).strip()


def _plain(value: object) -> str:
    """Return what was said, without the places of media and line breaks."""
    return " ".join(str(value or "").replace("<image>", " ").split())


def _kept(entry: Entry, split: Split) -> Entry:
    keep = split.keep
    why = ""
    if banned := [target for target in entry.targets if target in keep.without]:
        why = f"the answer {banned[0]!r} does not count here"
    elif found := [word for word in keep.not_containing if any(word in t for t in entry.targets)]:
        why = f"an answer that contains {found[0]!r} does not count here"
    elif keep.unanimous and len(set(entry.targets)) > 1:
        why = "answers that differ do not count here"
    return Entry(entry.place, left_out=why) if why else entry
