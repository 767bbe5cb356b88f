"""Labelled files: a folder a class, a table beside the files, or one table of many recordings."""

import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from jaxtyping import Shaped

from pathweave.data.utf8 import find_bad_text
from pathweave.decoders.recording import find_form, read_table
from pathweave.errors import ManifestError, MediaError, RequestError
from pathweave.validation import unknown

_ENDINGS = {
    "tables": ".csv .tsv .parquet",
    "arrays": ".npy",
    "sounds": ".wav .flac .mp3 .ogg",
    "pictures": ".png .jpg .jpeg .webp .bmp .tif .tiff",
    "clips": ".mp4 .webm .avi .mov .mkv .gif",
    "clouds": ".ply .npz .obj .off .glb",
}
_KIND_OF = {ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()}


@dataclass(frozen=True)
class LabelledFile:
    """A medium and the right answer about it.

    Attributes:
        name: What its source calls it; no two have one name.
        label: The answer, in lower-case words.
        group: What it shares with others that must stay in one split with it; None is nothing.
        path: The file; None if there is none yet.
        content: Its content, where there is no file yet.
    """

    name: str
    label: str
    group: str | None = None
    path: Path | None = None
    content: bytes | None = None

    def read(self) -> bytes:
        """Return the content.

        Raises:
            MediaError: Beginning with the rule, if there is no such file, or its name is no UTF-8.
        """
        if bad := find_bad_text(self.name):
            raise MediaError(f"must have a name in UTF-8, got {bad}; rename it")
        if self.path is None:
            return self.content or b""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise MediaError(
                f"must be a file that can be read, got {error.strerror}; add it or correct it"
            ) from error


@dataclass(frozen=True)
class LabelledFiles:
    """What was found.

    Attributes:
        files: The media, by name.
        kind: ``tables``, ``arrays``, ``sounds``, ``pictures``, ``clips`` or ``clouds``.
        notes: What was left aside, a line each.
    """

    files: tuple[LabelledFile, ...]
    kind: str
    notes: tuple[str, ...] = ()


def find_labelled_files(
    source: Path, label: str | None, group: str | None, recording: str | None
) -> LabelledFiles:
    """Return the media of a directory or a table, with their labels.

    Args:
        source: A directory of class folders; a directory with a table beside the media, or that
            table; or, with ``recording``, a table with a row per sample in time.
        label: The column of labels; None where folders are the classes.
        group: The column of what must stay in one split.
        recording: The column that says which recording a row belongs to.

    Raises:
        RequestError: If the arguments do not fit what is there, or a column is unknown.
        ManifestError: If a table cannot be read, or labels or files are not as they must be.
    """
    if not source.exists():
        raise RequestError(f"--from must name a file or a directory, got {source}; correct it")
    if source.is_dir() and label is None:
        for option, value in (("--group", group), ("--recording", recording)):
            if value is not None:
                raise RequestError(
                    f"{option} must name a column of a table, got {value!r} without --label; "
                    "give the column of labels too"
                )
        return _of_folders(source)
    if label is None:
        raise RequestError(f"--label COLUMN must be given for the table {source}; name it")
    if recording is None:
        return _of_table_beside(source, label, group)
    if source.is_dir():
        raise RequestError(
            f"--recording must go with one table of all recordings, got the directory {source}; "
            "leave it out, or name the table in --from"
        )
    return _of_long_table(source, label, group, recording)


def _of_folders(source: Path) -> LabelledFiles:
    folders = [path for path in _visible(source) if path.is_dir()]
    if not folders:
        beside = sorted({path.suffix.lower() for path in _visible(source)})
        raise RequestError(
            f"{source} must hold a folder a class, got files of {beside or 'nothing'} and no "
            "folder; sort them into folders, or name the column of labels of a table beside: "
            "--label COLUMN"
        )
    files, others = [], Counter[str](p.suffix for p in _visible(source) if p.is_file())
    for folder in folders:
        for path in _visible(folder):
            if path.is_dir():
                raise RequestError(
                    f"a class folder must hold files alone, got the folder {path}; give as --from "
                    "the directory whose folders are the classes"
                )
            if path.suffix.lower() in _KIND_OF:
                name = f"{folder.name}/{path.name}"
                files.append(LabelledFile(name, _answer(folder.name), path=path))
            else:
                others[path.suffix] += 1
    if not files:
        raise RequestError(
            f"the folders of {source} must hold media, got none with an ending of "
            f"{' '.join(_KIND_OF)}; convert them"
        )
    told = ", ".join(f"{count} {ending or 'without ending'}" for ending, count in others.items())
    notes = (f"left aside, as they are no media of a class: {told}",) if told else ()
    return LabelledFiles(tuple(files), _kind_of(file.name for file in files), notes)


def _of_table_beside(source: Path, label: str, group: str | None) -> LabelledFiles:
    root = source if source.is_dir() else source.parent
    is_table = [p for p in _visible(root) if _KIND_OF.get(p.suffix.lower()) == "tables"]
    paths = is_table if source.is_dir() else [source]
    if not paths:
        raise RequestError(
            f"{source} must hold a table with the column {label!r}, got none; add it, or leave out "
            "--label where folders are the classes"
        )
    tables: dict[Path, pa.Table] = {}
    for path in paths:
        try:
            tables[path] = _read(path)
        except ManifestError:
            if len(paths) == 1:
                raise
    having = {path: table for path, table in tables.items() if label in table.column_names}
    if not having:
        known = {name for table in tables.values() for name in table.column_names}
        raise RequestError(unknown("--label", label, known))
    columns = [(path, name) for path, table in having.items() for name in _files_in(table, root)]
    if len(columns) != 1:
        found = ", ".join(f"{name!r} of {path.name}" for path, name in columns)
        remedy = "keep one of them" if columns else (
            f"write file names with their endings, relative to {root}; for one table of many "
            "recordings give --recording COLUMN"
        )  # fmt: skip
        raise ManifestError(
            f"{source} must hold one column with the names of files, got {found or 'none'}; "
            f"{remedy}"
        )
    path, column = columns[0]
    names = _filled(tables[path], column, path, "the names of files")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ManifestError(f"{path} must name a file once, got {twice[0]!r} again; remove a row")
    labels = map(_answer, _filled(tables[path], label, path, "--label"))
    groups = _filled(tables[path], group, path, "--group") if group else [None] * len(names)
    files = (
        LabelledFile(name, said, of, root / name)
        for name, said, of in zip(names, labels, groups, strict=True)
    )
    return LabelledFiles(tuple(sorted(files, key=lambda file: file.name)), _kind_of(names))


def _of_long_table(source: Path, label: str, group: str | None, recording: str) -> LabelledFiles:
    table = _read(source)
    names, codes = _coded(table, recording, source, "--recording")
    told = {label: _coded(table, label, source, "--label")}
    if group:
        told[group] = _coded(table, group, source, "--group")
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(codes[order]) != 0])
    constant = {}
    for column, (texts, cells) in told.items():
        first = np.minimum.reduceat(cells[order], starts)
        last = np.maximum.reduceat(cells[order], starts)
        if (changing := np.flatnonzero(first != last)).size:
            at = changing[0]
            raise ManifestError(
                f"column {column!r} must be the same in all rows of a recording, got "
                f"{texts[first[at]]!r} and {texts[last[at]]!r} in {names[at]!r}; cut the recording "
                "where it changes"
            )
        constant[column] = [texts[code] for code in first]
    content = table.drop_columns(list(dict.fromkeys([recording, *told])))
    del table
    try:
        content = content.take(order) if np.any(np.diff(order) != 1) else content
    except pa.ArrowException as error:
        raise _unfit(source, error) from error
    files = []
    for at, (start, end) in enumerate(pairwise([*starts.tolist(), len(order)])):
        stream = io.BytesIO()
        try:
            pa_csv.write_csv(content.slice(start, end - start), stream)
        except pa.ArrowException as error:
            raise _unfit(source, error) from error
        of = constant[group][at] if group else None
        answer = _answer(constant[label][at])
        files.append(LabelledFile(names[at], answer, of, content=stream.getvalue()))
    return LabelledFiles(tuple(files), "tables")


def _unfit(source: Path, error: Exception) -> ManifestError:
    return ManifestError(
        f"{source} must hold columns of numbers, texts and times, got {error}; remove the others"
    )


def _visible(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def _answer(label: str) -> str:
    return " ".join(re.split(r"[\s_]+", label.lower())).strip()


def _kind_of(names: Iterable[str]) -> str:
    endings = Counter(os.path.splitext(name)[1].lower() for name in names)
    kinds = {_KIND_OF.get(ending, ending or "files without ending") for ending in endings}
    if len(kinds) > 1 or not kinds <= {*_ENDINGS}:
        found = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5))
        raise ManifestError(
            f"files must be of one kind ({', '.join(_ENDINGS)}), got {found}; convert some, or "
            "make a modality of each kind"
        )
    return kinds.pop()


def _read(path: Path) -> pa.Table:
    """Return a table with one name a column."""
    if _KIND_OF.get(path.suffix.lower()) != "tables":
        raise RequestError(
            f"a table must end in {_ENDINGS['tables'].replace(' ', ', ')}, got {path.name}; "
            "convert it, or give its directory"
        )
    try:
        data = path.read_bytes()
        table = read_table(data, decimal=find_form(data)[1] or ".")
    except MediaError as error:
        raise ManifestError(f"{path} {error}") from error
    except Exception as error:  # pyarrow lets errors of every kind escape from broken files.
        reason = " ".join(str(error).split())
        raise ManifestError(f"{path} must be a table, got {reason}; export it again") from error
    try:
        check_names(table)
    except MediaError as error:
        raise ManifestError(f"{path} {error}") from error
    return table


def check_names(table: pa.Table) -> None:
    """Check that every column has a name of its own.

    Raises:
        MediaError: Beginning with the rule, if it has not.
    """
    names = table.column_names
    for position, name in enumerate(names):
        if not name.strip() or names.count(name) > 1:
            found = f"{name!r} {names.count(name)} times" if name.strip() else "none"
            raise MediaError(
                f"must have a name of its own for every column, got {found} for column "
                f"{position + 1}; correct its first row"
            )


def _filled(table: pa.Table, column: str, path: Path, option: str) -> list[str]:
    """Return the cells of a column as text."""
    texts, codes = _coded(table, column, path, option)
    return [texts[code] for code in codes]


def _coded(
    table: pa.Table, column: str, path: Path, option: str
) -> tuple[list[str], Shaped[np.ndarray, " rows"]]:
    """Return the different texts of a column, sorted, and the number of that of each row."""
    if column not in table.column_names:
        raise RequestError(unknown(option, column, table.column_names))
    cells = table[column].combine_chunks()
    if pa.types.is_nested(cells.type):
        cells = pa.array(map(str, cells.to_pylist()))
    found = cells.dictionary_encode(null_encoding="encode")
    said = [
        "" if cell is None or cell != cell else str(cell).strip()  # a NaN is not itself
        for cell in found.dictionary.to_pylist()
    ]
    texts = sorted(set(said))  # so that every text has rows
    place = {text: number for number, text in enumerate(texts)}
    codes = np.array([place[text] for text in said], dtype=np.int64)[found.indices.to_numpy()]
    if not len(codes) or "" in place:
        where = f"an empty cell in row {1 + int(codes.argmin())}" if len(codes) else "no row"
        raise ManifestError(
            f"column {column!r} of {path} must be filled in every row, got {where}; fill it in, "
            "or remove the row"
        )
    return texts, codes


def _files_in(table: pa.Table, root: Path) -> list[str]:
    """Return the columns of which at least every second cell is a file below a directory."""
    found = []
    for column in table.column_names:
        cells = table[column].to_pylist()
        there = sum(isinstance(cell, str) and os.path.isfile(root / cell.strip()) for cell in cells)
        if cells and 2 * there >= len(cells):
            found.append(column)
    return found
