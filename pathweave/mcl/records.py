"""Reads annotation files record by record: CSV, TSV, JSON, JSON lines, arrays in a pickle.

A broken record is passed on with what is wrong, so that the rest of the file can be used; a file
that cannot be read at all raises.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathweave.errors import ManifestError
from pathweave.mcl.arrays import load_arrays
from pathweave.mcl.declaration import Layout
from pathweave.mcl.json_stream import iterate_json

Advance = Callable[[int], None]

# What a byte that is not UTF-8 becomes, and half a character of UTF-16.
_BAD_TEXT = re.compile("[\ud800-\udfff]")

_REPORT_EVERY = 256


@dataclass(frozen=True)
class Record:
    """One record of an annotation file.

    Args:
        place: File and row, for messages.
        values: The fields; empty if the record is broken.
        problem: What is wrong with it, or an empty text.
    """

    place: str
    values: Mapping[str, Any]
    problem: str = ""


def read_records(file: Path, layout: Layout, advance: Advance) -> Iterator[Record]:
    """Yield the records of one annotation file of text.

    Args:
        file: The file.
        layout: How it is to be read.
        advance: Called with the number of bytes read since the last call.

    Raises:
        ManifestError: If the file is missing, empty or not of its format.
    """
    read = {"csv": _csv, "json": _json, "jsonl": _json_lines}[layout.format]
    with _open(file) as raw:
        # Text that is not UTF-8 is found record by record, not by an error somewhere in a piece.
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        told = 0
        for number, (values, problem) in enumerate(read(text, file, layout), start=1):
            yield _checked(f"{file}, row {number}", values, problem)
            if number % _REPORT_EVERY == 0:
                told, before = raw.tell(), told
                advance(told - before)
        advance(raw.tell() - told)


def read_table(file: Path, key: str, list_key: str | None = None) -> dict[str, Mapping[str, Any]]:
    """Return all records of a CSV or JSON file by one of their fields.

    Raises:
        ManifestError: If the file cannot be read or a record has no such field.
    """
    layout = Layout(format="csv" if file.suffix == ".csv" else "json", list=list_key)
    table = {}
    for record in read_records(file, layout, lambda _: None):
        if record.problem or key not in record.values:
            problem = record.problem or (
                f"a record must have the field {key!r}, got {', '.join(record.values)[:120]}"
            )
            raise ManifestError(f"{record.place}: {problem}; download the file again")
        table[str(record.values[key])] = record.values
    return table


def _checked(place: str, values: object, problem: str) -> Record:
    if problem:
        return Record(place, {}, problem)
    if not isinstance(values, dict):
        return Record(place, {}, f"a record must be an object with fields, got {values!r:.60}")
    if bad := _find_bad_text(values):
        return Record(place, {}, f"text must be UTF-8, got {bad}; convert the file to UTF-8")
    return Record(place, values)


def _find_bad_text(value: object) -> str:
    if isinstance(value, str):
        found = _BAD_TEXT.search(value)
        return ascii(value[max(0, found.start() - 20) : found.start() + 20]) if found else ""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return next((bad for element in value if (bad := _find_bad_text(element))), "")
    return ""


def _csv(text: io.TextIOWrapper, file: Path, layout: Layout) -> Iterator[tuple[object, str]]:
    lines = (line for line in text if not (layout.comment and line.startswith(layout.comment)))
    delimiter = "\t" if file.suffix == ".tsv" else ","
    rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    names = list(layout.columns) or _header(rows, file)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield None, f"a row must be CSV, got {error}; correct its quotation marks"
            continue
        if row is None:
            return
        if not row:
            continue
        if len(row) != len(names):
            yield None, f"a row must have the columns {', '.join(names)}, got {len(row)} values"
            continue
        yield dict(zip(names, row, strict=True)), ""


def _header(rows: Iterator[list[str]], file: Path) -> list[str]:
    try:
        names = next(rows, [])
    except csv.Error as error:
        raise ManifestError(f"{file} must begin with the names of columns, got {error}") from error
    if not names:
        raise ManifestError(
            f"{file} must begin with the names of columns, got an empty file; download it again"
        )
    return names


def _json(text: io.TextIOWrapper, file: Path, layout: Layout) -> Iterator[tuple[object, str]]:
    for value in iterate_json(text, str(file), layout.list):
        yield value, ""


def _json_lines(text: io.TextIOWrapper, file: Path, layout: Layout) -> Iterator[tuple[object, str]]:
    for line in text:
        if not line.strip():
            continue
        try:
            yield json.loads(line), ""
        except (ValueError, RecursionError) as error:
            yield None, f"a line must be one JSON object, got {line.strip()[:40]!r} ({error})"


def read_points(file: Path, names_file: Path, ids_file: Path) -> Iterator[Record]:
    """Yield ``sample_id``, ``label`` and ``points`` of each cloud in a pickle of two lists.

    Args:
        file: The pickle: a list of arrays and a list of numbers of classes.
        names_file: The names of the classes, one a line.
        ids_file: The ids of the clouds, one a line.

    Raises:
        ManifestError: If a file is missing, or the pickle is not one of two such lists.
    """
    names, ids = _lines(names_file), _lines(ids_file)
    with _open(file) as raw:
        loaded = load_arrays(raw, str(file))
    lists = loaded if isinstance(loaded, list | tuple) else []
    lengths = [len(part) if isinstance(part, list) else None for part in lists]
    if lengths != [len(ids)] * 2:
        raise ManifestError(
            f"{file} must hold a list of points and a list of labels for the {len(ids)} ids of "
            f"{ids_file.name}, got lists of {lengths}; download the files of the same split"
        )
    clouds, labels = loaded
    for number, (name, cloud, label) in enumerate(zip(ids, clouds, labels, strict=True), start=1):
        place = f"{file}, row {number}"
        try:
            values = {"sample_id": name, "label": names[_index(label)], "points": cloud}
        except (TypeError, ValueError, IndexError):
            problem = f"a label must be a number below {len(names)}, got {label!r:.40}"
            yield Record(place, {}, problem)
            continue
        yield Record(place, values)


def _index(label: Any) -> int:  # noqa: ANN401
    index = int(label.item() if hasattr(label, "item") else label)
    if index < 0:
        raise ValueError("a negative label")
    return index


def _lines(file: Path) -> list[str]:
    with _open(file) as raw:
        lines = raw.read().decode("utf-8-sig", "replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _open(file: Path) -> io.BufferedReader:
    try:
        return file.open("rb")
    except FileNotFoundError as error:
        raise ManifestError(
            f"{file} must exist, got no such file; download it (docs/datasets.md says where) or "
            "correct the path"
        ) from error
    except OSError as error:
        raise ManifestError(
            f"{file} must be readable, got {error.strerror}; correct the path or its permissions"
        ) from error
