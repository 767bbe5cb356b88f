"""Tar shards in the form of webdataset, read at random: where each member begins is found once.

Members in a row whose names are equal up to the first dot of the file name are one sample::

    000123.json                       a sample as in a manifest; its paths are endings, or names
    000123.MODALITY.jpg  000123.txt   or: media by modality, and the answer
    000123.cls  000123.question.txt   or a class in place of the text; and what is asked

A YAML file says what endings mean where they do not say it themselves::

    shards: shards/{000000..000099}.tar
    media: {jpg: MODALITY}
    question: What is it?
    answer: json.caption              # a member, or a field of one that is JSON
    classes: [a cat, a dog]           # what the numbers in a member cls stand for
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Mapping
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from pydantic import BaseModel, Field, ValidationError

from pathweave.data.messages import Sample, parse_sample
from pathweave.errors import DiskError, ManifestError, MediaError
from pathweave.storage.atomic import cache_home, new_file, sha256_bytes
from pathweave.validation import explain

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_PLACE = re.compile(r"(.*)@(\d+)\+(\d+)", re.DOTALL)
_TEXTS = ("json", "txt", "cls")
_ASKED = "question.txt"
_MEMBER = pa.struct([("ending", pa.string()), ("offset", pa.int64()), ("size", pa.int64())])
_SCHEMA = pa.schema([("key", pa.string()), ("members", pa.list_(_MEMBER))])
_ROWS = 4096


class ShardForm(BaseModel, frozen=True, extra="forbid"):
    """Where tar shards are, and what the endings of their members mean.

    Args:
        shards: Tar files, relative to the file that says so; ``{000..099}`` stands for numbers,
            ``*`` for anything.
        media: Modality by ending; other members are not read. Empty takes the beginning of each
            ending: ``MODALITY.jpg``.
        question: What is asked about every sample; none takes the member ``question.txt``.
        answer: Ending of the member with the answer, or ``json.FIELD``; None takes ``txt``, then
            ``cls``.
        classes: What the numbers in members ``cls`` stand for; empty takes the numbers.

    Example:
        >>> ShardForm(shards="birds-{00..11}.tar", media={"jpg": "image"}).answer is None
        True
    """

    shards: str | tuple[str, ...] = Field(min_length=1)
    media: dict[str, str] = {}
    question: str | None = None
    answer: str | None = None
    classes: tuple[str, ...] = ()


def is_sharded(path: Path) -> bool:
    """Return whether the name of a manifest is that of tar shards, or of a file about them."""
    return path.suffix.lower() in (".tar", ".yaml")


class TarRows:
    """The samples of tar shards, as the rows of a manifest.

    Args:
        path: Tar files, with ``{000..099}`` or ``*`` for several, or a YAML file about them.

    Raises:
        ManifestError: If one is missing or no whole tar file, or the YAML file is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        is_yaml = path.suffix.lower() == ".yaml"
        self._form = _read_form(path) if is_yaml else ShardForm(shards=path.name)
        named = self._form.shards
        shards = [named] if isinstance(named, str) else named
        self.shards = [file for one in shards for file in _expand(path.parent / one)]
        self.files = [*([path] if is_yaml else []), *self.shards]
        self._tables = [_index(shard) for shard in self.shards]
        self._ends = np.cumsum([table.num_rows for table in self._tables])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def place(self, index: int) -> str:
        """Return where a row is, for messages."""
        shard, row = self._find(index)
        return f"{self.shards[shard]}, sample {row['key']}"

    def __getitem__(self, index: int) -> Sample:
        """Return a row as a sample; its id is the name of its shard and its key."""
        shard, row = self._find(index)
        place = self.place(index)
        file = self.shards[shard]
        members = {each["ending"]: each for each in row["members"]}
        name = os.path.relpath(file, self._path.parent)
        paths = {
            ending: f"{name}#{row['key']}.{ending}@{each['offset']}+{each['size']}"
            for ending, each in members.items()
        }
        texts = {
            ending: _text(file, each, f"{place}.{ending}")
            for ending, each in members.items()
            if ending in (*_TEXTS, _ASKED, self._form.answer)
        }
        told = _json(texts["json"], place) if "json" in texts else {}
        if "messages" in told:
            told = {**told, "messages": _with_paths(told["messages"], paths, row["key"], place)}
        else:
            told = self._labelled(told, texts, paths, place)
        return parse_sample({**told, "id": f"{file.stem}/{row['key']}"}, place)

    @cached_property
    def sha256(self) -> str:
        """Hash of the names of all members, and of where and how large they are."""
        digest = hashlib.sha256(self._form.model_dump_json().encode())
        for shard, table in zip(self.shards, self._tables, strict=True):
            digest.update(f"{shard.name} {table.num_rows}".encode())
            for batch in table.to_batches():
                digest.update(json.dumps(batch.to_pylist()).encode())
        return digest.hexdigest()

    def _find(self, index: int) -> tuple[int, dict[str, Any]]:
        shard = int(np.searchsorted(self._ends, index, side="right"))
        table = self._tables[shard]
        at = index - int(self._ends[shard]) + table.num_rows
        return shard, table.slice(at, 1).to_pylist()[0]

    def _labelled(
        self,
        told: Mapping[str, Any],
        texts: Mapping[str, str],
        paths: Mapping[str, str],
        place: str,
    ) -> dict[str, Any]:
        """Return the fields of a sample that is media and an answer."""
        form, content = self._form, list[dict[str, str]]()
        for ending, path in paths.items():
            kind = form.media.get(ending)
            if not form.media and ending not in (*_TEXTS, _ASKED, form.answer):
                kind, dot, _ = ending.partition(".")
                if not dot:
                    raise ManifestError(
                        f"{place}: a medium must say its modality, got the member .{ending}; name "
                        f"it .MODALITY.{ending}, or name modalities in a YAML file, media: "
                        f"{{{ending}: MODALITY}}"
                    )
            if kind is not None:
                content.append({"type": kind, "path": path})
        if asked := form.question or texts.get(_ASKED):
            content.append({"type": "text", "text": asked})
        messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
        answer = _answer(form, told, texts, place)
        if answer is not None:
            messages.append({"role": "assistant", "content": answer})
        about = {name: told[name] for name in ("licence", "source", "object") if name in told}
        return {**about, "messages": messages}


def read_member(path: Path) -> bytes:
    """Return the bytes of a member, given as ``SHARD.tar#NAME@OFFSET+SIZE``.

    Raises:
        MediaError: If there is no such file, or it ends before.
    """
    file, _, named = str(path).rpartition("#")
    found = _PLACE.fullmatch(named)
    if found is None:
        raise MediaError(
            f"{path} must name a member as NAME@OFFSET+SIZE, got {named!r}; take the shards "
            "themselves as manifest"
        )
    try:
        return _bytes(Path(file), int(found[2]), int(found[3]))
    except OSError as error:
        raise MediaError(
            f"{file} must be a whole tar file, got {error.strerror or error}; copy it again"
        ) from error


def _answer(
    form: ShardForm, told: Mapping[str, Any], texts: Mapping[str, str], place: str
) -> str | None:
    named = form.answer or next((ending for ending in ("txt", "cls") if ending in texts), None)
    if named is None:
        return None
    first, _, inner = named.partition(".")
    found = told.get(inner) if first == "json" and inner else texts.get(named)
    if not isinstance(found, str | int | float):
        raise ManifestError(
            f"{place}: the answer must be in {named}, got {found!r}; add it, or correct answer in "
            "the YAML file"
        )
    answer = str(found).strip()
    if named != "cls" or not form.classes:
        return answer
    if not answer.isdecimal() or int(answer) >= len(form.classes):
        raise ManifestError(
            f"{place}: cls must be one of {len(form.classes)} classes, got {answer!r}; correct it"
        )
    return form.classes[int(answer)]


def _with_paths(messages: Any, paths: Mapping[str, str], key: str, place: str) -> Any:  # noqa: ANN401
    """Return messages with the places of members for their endings or names."""
    if isinstance(messages, list):
        return [_with_paths(each, paths, key, place) for each in messages]
    if not isinstance(messages, dict):
        return messages
    told = {name: _with_paths(value, paths, key, place) for name, value in messages.items()}
    for name in ("path", "companion"):
        if isinstance(given := told.get(name), str):
            ending = given.removeprefix(f"{key}.")
            if ending not in paths:
                raise ManifestError(
                    f"{place}: {name} must be a member of the sample, one of {sorted(paths)}, got "
                    f"{given!r}; correct the JSON"
                )
            told[name] = paths[ending]
    return told


def _read_form(path: Path) -> ShardForm:
    rule = f"{path} must say shards: FILES.tar, and what their members are"
    try:
        return ShardForm.model_validate(yaml.safe_load(path.read_bytes()))
    except (OSError, yaml.YAMLError, RecursionError) as error:
        raise ManifestError(f"{rule}, got {' '.join(str(error).split())}; correct it") from error
    except ValidationError as error:
        raise ManifestError(f"{rule}, got {explain(error, ShardForm)}; correct it") from error


def _expand(pattern: Path) -> list[Path]:
    """Return the files that a pattern names; all of them must exist."""
    parts = _RANGE.split(str(pattern))
    spans = [
        [f"{i:0{len(first)}}" for i in range(int(first), int(last) + 1)]
        for first, last in zip(parts[1::3], parts[2::3], strict=True)
    ]
    names = [
        "".join(text + number for text, number in zip(parts[::3], (*numbers, ""), strict=True))
        for numbers in product(*spans)
    ]
    found = [
        file
        for name in names
        for file in (
            sorted(Path(name).parent.glob(Path(name).name)) if "*" in name else [Path(name)]
        )
    ]
    if missing := [file for file in found if not file.is_file()] or ([] if found else [pattern]):
        raise ManifestError(
            f"{pattern} must name tar files that exist, got no {missing[0].name}; correct the "
            "pattern, or copy what is missing"
        )
    return found


def _index(shard: Path) -> pa.Table:
    """Return the samples of a shard, from a file beside the cache where they were found before."""
    about = shard.stat()
    name = f"{shard.absolute()} {about.st_size} {about.st_mtime_ns}"
    file = cache_home() / "shards" / f"{sha256_bytes(name.encode())[:32]}.arrow"
    try:
        with pa.memory_map(str(file)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException):
        pass  # not there, or damaged
    table = pa.Table.from_pylist(_samples(shard), schema=_SCHEMA)
    if table.num_rows == 0:
        raise ManifestError(f"{shard} must have at least one sample, got none; add samples")
    try:
        with (
            new_file(file, sync=False) as temporary,
            pa.OSFile(str(temporary), "wb") as sink,
            pa.ipc.new_file(sink, _SCHEMA) as writer,
        ):
            writer.write_table(table, max_chunksize=_ROWS)
    except DiskError:
        return table  # it is found anew next time
    return table


def _samples(shard: Path) -> list[dict[str, Any]]:
    samples: list[dict[str, Any]] = []
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # which otherwise keeps all
                folder, _, name = member.name.rpartition("/")
                stem, dot, ending = name.partition(".")
                if not member.isreg() or not dot or not stem:
                    continue
                key = f"{folder}/{stem}" if folder else stem
                place = {
                    "ending": ending.lower(),
                    "offset": member.offset_data,
                    "size": member.size,
                }
                if not samples or samples[-1]["key"] != key:
                    samples.append({"key": key, "members": []})
                samples[-1]["members"].append(place)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ManifestError(
            f"{shard} must be a whole tar file, not compressed, got {error}; copy it again, or "
            "decompress it"
        ) from error
    return samples


def _text(file: Path, member: Mapping[str, Any], place: str) -> str:
    try:
        return _bytes(file, member["offset"], member["size"]).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{place}: text must be UTF-8, got {error}; correct it") from error


def _json(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError(f"of type {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        rule = f"{place}: a member json must be one JSON object"
        raise ManifestError(f"{rule}, got {text[:40]!r} ({error}); correct it") from error
    return value


def _bytes(file: Path, offset: int, size: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        data = opened.read(size)
    if len(data) < size:
        raise OSError(f"{len(data)} of {size} bytes")
    return data
