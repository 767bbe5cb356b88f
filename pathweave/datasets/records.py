"""Reads annotation files of text record by record: CSV, TSV, JSON, JSON lines.

A broken record is passed on with what is wrong, so that the rest of the file can be used; a file
that cannot be read at all raises.
"""

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pathweave.data.utf8 import find_bad_text
from pathweave.datasets.csv_rows import iterate_csv
from pathweave.datasets.declaration import Layout
from pathweave.datasets.json_stream import iterate_json
from pathweave.errors import ManifestError

Advance = Callable[[int], None]

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
    with open_annotations(file) as raw:
        # Text that is not UTF-8 is found record by record, not by an error somewhere in a piece.
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        told = 0
        for number, (values, problem) in enumerate(read(text, file, layout), start=1):
            yield _checked(f"{file}, row {number}", values, problem)
            if number % _REPORT_EVERY == 0:
                told, before = raw.tell(), told
                advance(told - before)
        advance(raw.tell() - told)


def _checked(place: str, values: object, problem: str) -> Record:
    if problem:
        return Record(place, {}, problem)
    if not isinstance(values, dict):
        return Record(place, {}, f"a record must be an object with fields, got {values!r:.60}")
    if bad := find_bad_text(values):
        return Record(place, {}, f"text must be UTF-8, got {bad}; convert the file to UTF-8")
    return Record(place, values)


def _csv(text: io.TextIOWrapper, file: Path, layout: Layout) -> Iterator[tuple[object, str]]:
    lines = (line for line in text if not (layout.comment and line.startswith(layout.comment)))
    delimiter = "\t" if file.suffix == ".tsv" else ","
    return iterate_csv(lines, str(file), layout.columns, delimiter)


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
