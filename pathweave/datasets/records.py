"""Records of annotation files, one by one: CSV, TSV, JSON, JSON lines.

A broken record is passed on with what is wrong, so that the rest of the file can be used; a file
that cannot be read at all raises.
"""

import csv
import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ValidationError

from pathweave.data.messages import Sample
from pathweave.data.utf8 import find_bad_text
from pathweave.datasets.declaration import Layout
from pathweave.datasets.json_stream import iterate_json
from pathweave.datasets.media_files import FoundMedium, MissingError
from pathweave.datasets.patterns import fill, names
from pathweave.errors import ManifestError, MediaError
from pathweave.validation import explain

Advance = Callable[[int], object]
Kind = Literal["usable", "missing", "broken", "flawed", "left_out"]

_REPORT_EVERY = 256


@dataclass(slots=True)
class Record:
    """One record of an annotation file, and what becomes of it.

    Args:
        place: File and row, for messages.
        values: The fields, with those of joined records; empty if it cannot be read.
        kind: ``usable``; ``missing``: a medium is not on disk; ``broken``: it cannot be used;
            ``flawed``: it cannot be used and is no sample of its own, such as one of the captions
            of a sample, or a row of a table; ``left_out``: the data set is declared without it.
        reason: Why it is not usable.
        question: The question, or an empty text.
        targets: Captions, answers or labels.
        sample: The sample, once it is built.
        media: The media of the sample, companions among them.
        count: For how many samples it stands.
    """

    place: str
    values: dict[str, Any] = field(default_factory=dict)
    kind: Kind = "usable"
    reason: str = ""
    question: str = ""
    targets: tuple[str, ...] = ()
    sample: Sample | None = None
    media: tuple[FoundMedium, ...] = ()
    count: int = 1

    def fail(self, why: Exception | str, kind: Kind = "broken") -> "Record":
        """Return this record as one that cannot be used, with the remedy if that is in the row."""
        reason = explain(why, Sample) if isinstance(why, ValidationError) else str(why)
        if isinstance(why, MissingError):
            kind = "missing"
        elif not isinstance(why, MediaError):
            reason += "; correct the row or remove it"
        return replace(self, kind=kind, reason=reason, sample=None, media=())


def read_records(file: Path, layout: Layout, advance: Advance = lambda _: None) -> Iterator[Record]:
    """Yield the records of one annotation file of text.

    Args:
        file: The file.
        layout: How it is to be read.
        advance: Called with the number of KiB read since the last call.

    Raises:
        ManifestError: If the file is missing, empty or not of its format.
    """
    with open_annotations(file) as raw:
        # Text that is not UTF-8 is found record by record, not by an error somewhere in a piece.
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        rows: Iterator[tuple[object, str]]
        if layout.format == "csv":
            lines = (x for x in text if not (layout.comment and x.startswith(layout.comment)))
            delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
            rows = iterate_csv(lines, str(file), layout.columns, delimiter)
        elif layout.format == "jsonl":
            rows = _json_lines(text)
        else:
            rows = ((value, "") for value in iterate_json(text, str(file), layout.list))
        told = 0
        for number, (values, problem) in enumerate(rows, start=1):
            place = f"{file}, row {number}"
            if not problem and not isinstance(values, dict):
                problem = f"a record must be an object with fields, got {values!r:.60}"
            if not problem and (bad := find_bad_text(values)):
                problem = f"text must be UTF-8, got {bad}; convert the file to UTF-8"
            yield Record(place).fail(problem) if problem else Record(place, cast(dict, values))
            if number % _REPORT_EVERY == 0:
                told, before = raw.tell() >> 10, told
                advance(told - before)
        advance((raw.tell() >> 10) - told)


def _json_lines(text: Iterable[str]) -> Iterator[tuple[object, str]]:
    for line in filter(str.strip, text):
        try:
            yield json.loads(line), ""
        except (ValueError, RecursionError) as error:
            yield None, f"a line must be one JSON object, got {line.strip()[:40]!r} ({error})"


def iterate_csv(
    lines: Iterable[str], name: str, columns: tuple[str, ...], delimiter: str
) -> Iterator[tuple[dict[str, str] | None, str]]:
    r"""Yield each row as a record, or None and what is wrong with it.

    A quotation mark that is never closed costs its own line alone.

    Args:
        lines: The lines of the file.
        name: Its name, for messages.
        columns: Names of the columns; empty takes them from the first row.
        delimiter: What stands between values.

    Raises:
        ManifestError: If there is no row of names, or it is no CSV in UTF-8.

    Example:
        >>> list(iterate_csv(['id,says\n', '1,"Hi\n', '2,Yes\n'], "a.csv", (), ","))[1]
        ({'id': '2', 'says': 'Yes'}, '')
    """
    unread, again, taken = iter(lines), deque[str](), list[str]()

    def feed() -> Iterator[str]:
        while (line := again.popleft() if again else next(unread, None)) is not None:
            taken.append(line)
            yield line

    def rows() -> Iterator[list[str]]:
        return csv.reader(feed(), delimiter=delimiter, skipinitialspace=True, strict=True)

    reader = rows()
    header = columns or _header(reader, name)
    while True:
        taken.clear()
        try:
            row, problem = next(reader, None), ""
            if row and len(row) != len(header):
                listed = ", ".join(header)
                problem = f"a row must have the columns {listed}, got {len(row)} values"
        except csv.Error as error:
            row, problem = None, f"a row must be CSV with its quotation marks closed, got {error}"
        if problem:
            # A row that goes over several lines and is wrong is most likely one with a stray mark,
            # and the lines after its first are rows of their own.
            again.extendleft(reversed(taken[1:]))
            reader = rows()
            yield None, problem
        elif row is None:
            return
        elif row:
            yield dict(zip(header, row, strict=True)), ""


def _header(rows: Iterator[list[str]], name: str) -> tuple[str, ...]:
    rule = f"{name} must begin with the names of columns"
    try:
        header = next(filter(None, rows), [])
    except csv.Error as error:
        raise ManifestError(f"{rule}, got {error}; correct its first line") from error
    if not header:
        raise ManifestError(f"{rule}, got an empty file; download it again")
    if bad := find_bad_text(header):
        raise ManifestError(f"{rule} in UTF-8, got {bad}; convert the file to UTF-8")
    return tuple(header)


def open_annotations(file: Path) -> io.BufferedReader:
    """Open a file to be read as bytes.

    Raises:
        ManifestError: If it is missing or cannot be read.
    """
    try:
        return file.open("rb")
    except FileNotFoundError as error:
        raise ManifestError(
            f"{file} must exist, got no such file; correct the path, or download the file again"
        ) from error
    except OSError as error:
        raise ManifestError(
            f"{file} must be readable, got {error.strerror}; correct the path or its permissions"
        ) from error


Keyed = tuple[dict[str, dict[str, Any]], list[Record]]


def read_table(file: Path, key: str, list_key: str | None = None) -> Keyed:
    """Return the records of a CSV or JSON file by one of their fields, and those that are flawed.

    Flawed are records without the field, and those with the same key and other values.

    Raises:
        ManifestError: If the file cannot be read, or no record of it can be used.
    """
    layout = Layout(format="csv" if file.suffix.lower() == ".csv" else "json", list=list_key)
    table: dict[str, dict[str, Any]] = {}
    flaws, unclear = [], set()
    for record in read_records(file, layout):
        name, problem = str(record.values.get(key)), ""
        if record.kind != "usable":
            flaws.append(replace(record, kind="flawed"))
        elif key not in record.values:
            problem = f"a record must have the field {key!r}, got {names(record.values)}"
        elif table.setdefault(name, record.values) != record.values:
            unclear.add(name)
            problem = f"{key!r} must be unique, got {name!r:.80} before with other values"
        if problem:
            flaws.append(record.fail(problem, "flawed"))
    for name in unclear:
        del table[name]
    if flaws and not table:
        raise ManifestError(f"{flaws[0].place}: {flaws[0].reason}, or download the file again")
    return table, flaws


def grouped(records: Iterable[Record], pattern: tuple[str, ...]) -> Iterator[Record]:
    """Yield one record for all that fill a pattern equally, with the targets of each.

    What is broken is a flaw of its group where the rest can be used. A broken record that names no
    group stands for a sample, which it may well have been.

    Args:
        records: The records; one of each group is held in memory, with the targets of all.
        pattern: What is equal in a group.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        try:
            key = "" if record.kind == "flawed" else fill(pattern, record.values)[0]
        except ManifestError as error:
            yield record if record.kind == "broken" else record.fail(error)
            continue
        group = groups.setdefault(key, []) if key else []
        if not key:
            yield record
        elif record.kind == "broken":
            group.append(record)
        elif group and group[0].kind == "usable":
            group[0].targets += record.targets
        else:
            group.insert(0, record)
    for first, *broken in groups.values():
        yield first
        for record in broken:
            yield replace(record, kind="flawed")


def values_at(values: Mapping[str, Any], path: str) -> list[Any]:
    """Return what is at a path of fields; lists on the way are gone through.

    Raises:
        ManifestError: If a field is missing, or a list is empty.

    Example:
        >>> values_at({"answers": [{"answer": "yes"}, {"answer": 3}]}, "answers.answer")
        ['yes', 3]
    """
    found: list[Any] = [values]
    for step in path.split("."):
        inner: list[Any] = []
        for value in found:
            if not isinstance(value, Mapping) or step not in value:
                shown = names(value) if isinstance(value, Mapping) else f"{value!r:.60}"
                raise ManifestError(f"a record must have the field {path!r}, got {shown}")
            inner.extend(value[step] if isinstance(value[step], list) else [value[step]])
        found = inner
    if not found:
        raise ManifestError(f"the field {path!r} must hold at least one text, got an empty list")
    return found


def text_of(value: object, path: str) -> str:
    """Return the text or number that a field holds, as text without spaces around it.

    Raises:
        ManifestError: If it holds nothing, or something else.
    """
    # JSON has true and NaN, too, which are no answers.
    is_number = type(value) is int or (isinstance(value, float) and isfinite(value))
    if not is_number and not (isinstance(value, str) and value.strip()):
        raise ManifestError(f"the field {path!r} must hold text, got {value!r:.60}")
    return str(value).strip()


def find(values: Mapping[str, Any], path: str) -> list[str]:
    """Return the texts at a path of fields; lists on the way are gone through.

    Raises:
        ManifestError: If a field is missing, or holds nothing or no text.
    """
    return [text_of(value, path) for value in values_at(values, path)]
