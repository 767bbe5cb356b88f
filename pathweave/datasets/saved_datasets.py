"""Importer of data sets that Hugging Face ``datasets`` has saved: Arrow files, or Parquet of a hub.

Rows are conversations with columns of media, or media with a label or a text. Media are structures
of bytes and a path; the names of classes stand in the description of the columns.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from pathweave.data.messages import Message, Part, Sample
from pathweave.datasets.conversations import TURNS, read_conversations, usual_columns
from pathweave.datasets.media_files import MediaPlaces
from pathweave.datasets.records import Advance, Record, text_of
from pathweave.errors import ManifestError, MediaError, RecipeError
from pathweave.validation import unknown

QUESTION = "What is it?"

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}.*")
_NUMBER = re.compile(r"(part-?)?\d+.*")
_ROWS_AT_ONCE = 64

# Columns that are taken as answers, and the one that holds a question of its own for every row.
_ANSWERS = ("answer", "answers", "caption", "captions", "text", "sentence", "transcription")
_ASKED = "question"


@dataclass(frozen=True)
class SavedSplit:
    """One split of a data set on disk.

    Args:
        files: Its Arrow or Parquet files, in order.
        split: Its name; empty if it has none.
        schema: The columns of the first file.
        features: What ``datasets`` says of the columns, by name.
    """

    files: tuple[Path, ...]
    split: str
    schema: pa.Schema
    features: Mapping[str, Any]

    @cached_property
    def media(self) -> dict[str, str]:
        """The columns that hold media, and the kind of each: its feature, or the column's name."""
        found = {}
        for field in self.schema:
            kind = field.type.value_type if _is_list(field.type) else field.type
            if pa.types.is_struct(kind) and {each.name for each in kind} == {"bytes", "path"}:
                told = _inner(self.features.get(field.name)).get("_type", "")
                found[field.name] = str(told).lower() or field.name.removesuffix("s")
        return found

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        """The columns of classes, and their names."""
        found = {name: dict(_inner([told])).get("names") for name, told in self.features.items()}
        integers = {field.name for field in self.schema if pa.types.is_integer(field.type)}
        return {name: names for name, names in found.items() if names and name in integers}

    def records(self, advance: Advance) -> Iterator[Record]:
        """Yield the rows.

        Raises:
            ManifestError: If a file cannot be read; what came before was sound.
        """
        for file in self.files:
            number = 0
            try:
                for batch in _batches(file, advance):
                    for row in range(batch.num_rows):
                        number += 1
                        yield _record(batch.slice(row, 1), f"{file}, row {number}")
            except (pa.ArrowException, OSError) as error:
                raise _damaged(file, error) from error


def find_saved(source: Path, split: str | None) -> SavedSplit:
    """Return a split of a directory that ``datasets`` saved, or of Parquet files.

    Args:
        source: The directory, or one Parquet file.
        split: The name of the split; None where there is but one.

    Raises:
        ManifestError: If there is no such directory, or it cannot be read.
        RecipeError: If there is no split of that name, or there are several and none is named.
    """
    splits = _splits(source)
    if not splits:
        raise ManifestError(
            f"{source} must be a directory saved by datasets, or hold Parquet files, got neither; "
            "correct the path"
        )
    if split is None and len(splits) > 1:
        raise RecipeError(f"--split must be one of {[*splits]}, got none; name one")
    if split is not None and split not in splits:
        raise RecipeError(unknown("--split", split, [*splits]))
    name = split or next(iter(splits))
    files = splits[name]
    try:
        schema = _schema(files[0])
    except (pa.ArrowException, OSError) as error:
        raise _damaged(files[0], error) from error
    described = files[0].parent / "dataset_info.json"
    told: Any = {}
    if text := (schema.metadata or {}).get(b"huggingface"):
        told = _parsed(text, f"the description of {files[0]}").get("info")
    elif described.is_file():
        told = _read_json(described)
    features = told.get("features") if isinstance(told, Mapping) else None
    return SavedSplit(files, name, schema, features if isinstance(features, Mapping) else {})


def read_saved(
    saved: SavedSplit,
    places: MediaPlaces,
    about: Mapping[str, str | None],
    label: str | None,
    question: str | None,
    advance: Advance,
) -> Iterator[Record]:
    """Yield a sample for each answer of each conversation, or for each row of media and a label.

    Args:
        saved: The split.
        places: Where media are that are no bytes.
        about: Licence and source of the samples.
        label: The column of answers; None takes conversations, or the only column of classes or of
            texts with a usual name.
        question: What is asked; None takes the column ``question``, or ``What is it?``.
        advance: Called with the number of KiB read since the last call.

    Raises:
        ManifestError: If there is no column of media, or no conversation and no answers.
        RecipeError: If the label is no column that can be one, or there are several.
    """
    types = {field.name: field.type for field in saved.schema}
    if label is None and any(_is_list(types.get(name)) or _is_struct(types.get(name))
                             for name in TURNS):  # fmt: skip
        columns = {name: kind for name, kind in usual_columns().items() if name in types}
        columns |= saved.media
        yield from read_conversations(saved.records(advance), places, about, columns or None)
        return
    if not saved.media:
        raise ManifestError(
            "a data set must have a column of media (structures of bytes and a path) or one of "
            f"conversations, got {', '.join(types)}; cast the column of media"
        )
    label = _label_of(saved, types, label)
    for number, record in enumerate(saved.records(advance), start=1):
        if record.kind != "usable":
            yield record
            continue
        try:
            yield _labelled(record, saved, places, about, label, question, number)
        except (ManifestError, MediaError, ValidationError) as error:
            yield record.fail(error)


def _labelled(
    record: Record,
    saved: SavedSplit,
    places: MediaPlaces,
    about: Mapping[str, str | None],
    label: str,
    question: str | None,
    number: int,
) -> Record:
    values, media = record.values, [
        (kind, value)
        for name, kind in saved.media.items()
        for value in _listed(record.values.get(name))
    ]  # fmt: skip
    if not media:
        raise ManifestError(f"a row must show a medium, got none in {', '.join(saved.media)}")
    keys = [f"{number}-{at}" if len(media) > 1 else f"{number}" for at, _ in enumerate(media, 1)]
    found = [places.part(*shown, key) for shown, key in zip(media, keys, strict=True)]
    parts = [part for part, _ in found]
    places.check(parts)
    asked = question or (text_of(values[_ASKED], _ASKED) if _ASKED in values else QUESTION)
    answers = _answers(values.get(label), label, saved.classes.get(label))
    content = (*parts, Part(type="text", text=asked))
    sample = Sample(
        id=f"{number}",
        messages=(
            Message(role="user", content=content),
            Message(role="assistant", content=(Part(type="text", text=answers[0]),)),
        ),
        references=answers if len(answers) > 1 else (),
        **about,
    )
    return replace(
        record, sample=sample, media=tuple(medium for _, medium in found if medium is not None)
    )


def _answers(value: object, label: str, classes: list[str] | None) -> tuple[str, ...]:
    if classes is None:
        said = [text_of(each, label) for each in _listed(value)]
        if not said:
            raise ManifestError(f"the field {label!r} must hold text, got {value!r}")
        return tuple(said)
    if not isinstance(value, int) or not 0 <= value < len(classes):
        raise ManifestError(f"{label!r} must be one of {len(classes)} classes, got {value!r}")
    return (classes[value],)


def _label_of(saved: SavedSplit, types: Mapping[str, pa.DataType], label: str | None) -> str:
    """Return the column of answers."""
    texts = [name for name, kind in types.items() if _is_text(kind)]
    if label is not None:
        if label not in types:
            raise RecipeError(unknown("--label", label, [*types]))
        if label not in (*saved.classes, *texts):
            raise RecipeError(
                f"--label must name a column of texts or of classes with names, got {label!r} of "
                f"{types[label]}; cast it to ClassLabel, or write the names in a column"
            )
        return label
    found = [*saved.classes, *(name for name in texts if name in _ANSWERS)]
    if len(found) != 1:
        raise RecipeError(
            f"--label must name the column of answers, got none and {found or 'none'} that may be "
            f"it among {', '.join(types)}; give it"
        )
    return found[0]


def _splits(source: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files of every split."""
    if (source / "dataset_dict.json").is_file():
        named = _read_json(source / "dataset_dict.json").get("splits") or []
        return {name: _shards(source / name) for name in named}
    if (source / "state.json").is_file():
        return {str(_read_json(source / "state.json").get("_split") or ""): _shards(source)}
    if source.is_file():
        return {"": (source,)}
    found = defaultdict(list)
    for file in sorted(source.rglob("*.parquet")):
        below = file.relative_to(source)
        is_own = below.name.endswith(".media.parquet")  # the store of an earlier conversion
        if not is_own and not any(part.startswith(".") for part in below.parts):
            shard = _SHARD.fullmatch(file.stem)
            name = shard[1] if shard else file.stem
            parts = below.parts[:-1] if _NUMBER.fullmatch(name) else (*below.parts[:-1], name)
            found[parts or ("",)].append(file)
    # Of a/data/train and a/data/test only the last part is a name, of en/train and de/train both.
    levels = zip(*found, strict=False)
    common = sum(1 for _ in takewhile(lambda parts: len({*parts}) == 1, levels))
    return {
        "/".join(parts[min(common, len(parts) - 1) :]): tuple(files)
        for parts, files in found.items()
    }


def _shards(directory: Path) -> tuple[Path, ...]:
    state = _read_json(directory / "state.json")
    if state.get("_indices_data_files"):
        raise ManifestError(
            f"{directory} must hold its rows in order, got a list of indices beside them; save it "
            "again after flatten_indices()"
        )
    named = state.get("_data_files")
    if not isinstance(named, list) or not all(isinstance(x, dict) for x in named) or not named:
        raise ManifestError(f"{directory} must name its Arrow files, got {named}; save it again")
    return tuple(directory / str(each.get("filename")) for each in named)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"{file} must be a file, got {error.strerror}; save the data set again"
        ) from error
    return _parsed(text, str(file))


def _parsed(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.40}")
    except (ValueError, RecursionError) as error:
        raise ManifestError(
            f"{name} must be a JSON object, got {error}; save the data set again"
        ) from error
    return value


def _schema(file: Path) -> pa.Schema:
    if file.suffix.lower() == ".parquet":
        return pq.read_schema(file)
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema


def _batches(file: Path, advance: Advance) -> Iterator[pa.RecordBatch]:
    size, told = file.stat().st_size >> 10, 0
    if file.suffix.lower() == ".parquet":
        with pq.ParquetFile(file) as table:
            done, total = 0, max(table.metadata.num_rows, 1)
            for batch in table.iter_batches(_ROWS_AT_ONCE):
                yield batch
                done += batch.num_rows
                advance(size * done // total - told)
                told = size * done // total
        return
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            yield batch
            advance((source.tell() >> 10) - told)
            told = source.tell() >> 10


def _record(row: pa.RecordBatch, place: str) -> Record:
    try:
        return Record(place, row.to_pylist()[0])
    except UnicodeDecodeError as error:
        return Record(place).fail(f"text must be UTF-8, got {error}")


def _damaged(file: Path, error: Exception) -> ManifestError:
    reason = " ".join(str(error).split())
    return ManifestError(
        f"{file} must be a whole Arrow or Parquet file, got {reason}; copy or save it again"
    )


def _inner(feature: Any) -> Mapping[str, Any]:  # noqa: ANN401
    """Return what is said of the elements of a column, which may be in lists of either form."""
    while isinstance(feature, list) and feature:
        feature = feature[0]
    while isinstance(feature, Mapping) and isinstance(feature.get("feature"), Mapping):
        feature = feature["feature"]
    return feature if isinstance(feature, Mapping) else {}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [value] * (value is not None)


def _is_list(kind: pa.DataType | None) -> bool:
    return kind is not None and (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_struct(kind: pa.DataType | None) -> bool:
    return kind is not None and pa.types.is_struct(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if _is_list(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
