"""Manifests: lists of samples on disk, as JSON lines, Parquet or tar shards.

Media paths in a manifest are relative to the directory it is in; absolute paths work, for a
manifest that stays on its machine. ``media.parquet#KEY`` is a row of a media store. The same
holds for companions.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pathweave.data.media_store import MediaStore, open_parquet
from pathweave.data.messages import Part, Sample, parse_sample
from pathweave.data.tar_shards import TarRows, is_sharded, read_member
from pathweave.data.utf8 import find_bad_text
from pathweave.decoders.pair import pack_pair
from pathweave.errors import ManifestError, MediaError
from pathweave.storage.atomic import new_file, sha256_bytes, sha256_file


def _schema(*part_fields: str) -> pa.Schema:
    part = pa.struct([(name, pa.string()) for name in part_fields])
    message = pa.struct([("role", pa.string()), ("content", pa.list_(part))])
    texts = ("object", "source", "licence", "attribution")
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("messages", pa.list_(message), nullable=False),
            *((name, pa.list_(pa.string())) for name in ("references", "choices")),
            *((name, pa.string()) for name in texts),
        ]
    )


SCHEMA = _schema("type", "text", "path")
_SCHEMA_OF_PAIRS = _schema("type", "text", "path", "companion")
_GROUP_ROWS = 2048


def evenly_spaced(total: int, limit: int | None) -> list[int]:
    """Return the indices of ``limit`` of ``total`` samples, the first and the last among them.

    Args:
        total: Number of samples.
        limit: How many to take; None, or more than there are, takes all.

    Example:
        >>> evenly_spaced(10, 4), evenly_spaced(3, None)
        ([0, 3, 6, 9], [0, 1, 2])
    """
    count = total if limit is None else min(limit, total)
    return [i * (total - 1) // max(count - 1, 1) for i in range(count)]


class Manifest:
    """The samples of one file, parsed when asked for.

    Opening finds the rows but does not parse them: a broken row raises when it is read.
    ``part_types`` and ``check`` read every row, so a run that calls one of them at its start
    meets a broken row then and not hours later.

    Args:
        path: A ``.jsonl`` or ``.parquet`` file; or ``.tar`` files (``shards/{000..099}.tar``), or a
            ``.yaml`` file about them (``tar_shards``).
        on_error: ``raise``: a broken row raises when read. ``collect``: every row is parsed on
            opening; broken ones, and those with the id of an earlier one, are left out and listed
            in ``problems``.

    Raises:
        ManifestError: If the file is missing, empty or not a manifest, or no row is sound.

    Example:
        >>> import tempfile
        >>> row = {"id": "a", "messages": [{"role": "user", "content": "Say hello."},
        ...                                {"role": "assistant", "content": "hello"}]}
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     write_manifest(Path(directory) / "train.jsonl", [row])
        ...     manifest = Manifest(Path(directory) / "train.jsonl")
        ...     len(manifest), manifest[0].answer
        (1, 'hello')
    """

    def __init__(self, path: str | Path, on_error: Literal["raise", "collect"] = "raise") -> None:
        self.path = Path(path)
        self.problems: list[str] = []
        self._rows: _JsonLines | _ParquetRows | TarRows
        if is_sharded(self.path):
            self._rows = TarRows(self.path)
        else:
            _check_ending(self.path)
            if not self.path.is_file():
                beside = sorted(p.name for p in self.path.parent.glob(f"*{self.path.suffix}"))[:5]
                raise ManifestError(
                    f"manifest {self.path} must exist, got no such file; beside it are: "
                    f"{beside or 'none'}"
                )
            is_text = self.path.suffix.lower() == ".jsonl"
            self._rows = _JsonLines(self.path) if is_text else _ParquetRows(self.path)
        self._stores: dict[Path, MediaStore] = {}
        if len(self._rows) == 0:
            raise ManifestError(f"{self.path} must have at least one row, got none; add samples")
        self._sound: Sequence[int] = range(len(self._rows))
        if on_error == "collect":
            self.problems, self._sound = self._examine()
            if not self._sound:
                raise ManifestError(
                    f"{self.path} must have at least one sound row, got {len(self.problems)} "
                    f"broken ones; the first: {self.problems[0]}"
                )

    def __len__(self) -> int:
        return len(self._sound)

    def __getitem__(self, index: int) -> Sample:
        """Parse and return one sample.

        Raises:
            ManifestError: If the row is broken.
            IndexError: If there is no such row.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below {len(self)} samples, got {index}")
        return self._rows[self._sound[index]]

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    @cached_property
    def part_types(self) -> set[str]:
        """Return the types of all parts other than text; reads every row.

        Raises:
            ManifestError: If a row is broken.
        """
        parts = (part for sample in self for turn in sample.messages for part in turn.content)
        return {part.type for part in parts if not part.is_text}

    def check(self) -> list[str]:
        """Read every row and return what is wrong, one line a row: broken, or an id used before."""
        return self._examine()[0]

    @property
    def files(self) -> list[Path]:
        """The files that the rows are in."""
        return self._rows.files if isinstance(self._rows, TarRows) else [self.path]

    def read_media(self, part: Part) -> bytes:
        """Return the bytes of the medium that a part names; with a companion, both as one archive.

        Raises:
            MediaError: If the part is text, or there is no such file or key.
            ManifestError: If the media store cannot be opened.
        """
        if part.path is None:
            raise MediaError(f"a part must have a path to be read, got text {part.text!r:.40}")
        data = self._read_file(part.path)
        return data if part.companion is None else pack_pair(self._read_file(part.companion), data)

    def _read_file(self, path: str) -> bytes:
        file, _, key = path.partition("#")
        if key and file.lower().endswith(".parquet"):
            store = self.path.parent / file
            if store not in self._stores:
                self._stores[store] = MediaStore(store)
            return self._stores[store].read(key)
        if key and file.lower().endswith(".tar"):
            return read_member(self.path.parent / path)
        try:
            return (self.path.parent / path).read_bytes()
        except (OSError, ValueError) as error:
            raise MediaError(
                f"{path} in {self.path} must be a file beside the manifest, got "
                f"{getattr(error, 'strerror', None) or error}; correct the path (it is relative "
                "to the manifest's directory) or add the file"
            ) from error

    def _examine(self) -> tuple[list[str], Sequence[int]]:
        """Return what is wrong, and the rows that are sound; 16 bytes a row are in memory."""
        problems: dict[int, str] = {}
        sound, digests = array("q"), array("Q")
        for index in range(len(self._rows)):
            try:
                digests.append(int(sha256_bytes(self._rows[index].id.encode())[:16], 16))
                sound.append(index)
            except ManifestError as error:
                problems[index] = str(error)
        problems |= self._repeated(np.array(sound), np.array(digests))
        if len(problems) > len(self._rows) - len(sound):
            sound = array("q", (index for index in sound if index not in problems))
        return [problems[index] for index in sorted(problems)], sound

    def _repeated(self, rows: np.ndarray, digests: np.ndarray) -> dict[int, str]:
        """Return what to say of each row whose id an earlier one has."""
        order = np.argsort(digests, kind="stable")
        same = digests[order][1:] == digests[order][:-1]
        alike = {int(rows[at]) for pair in (order[1:][same], order[:-1][same]) for at in pair}
        first: dict[str, str] = {}
        problems = {}
        for row in sorted(alike):
            id, place = self._rows[row].id, self._rows.place(row)
            if first.setdefault(id, place) != place:
                # By its id a sample is scored, stored and drawn for: two are taken for one.
                problems[row] = (
                    f"{place}: ids must be unique, got {id!r:.80} of {first[id]} again; give every "
                    "sample an id of its own"
                )
        return problems


def manifest_sha256(path: Path) -> str:
    """Return a hash of the rows of a manifest: of the file, or of the members of tar shards.

    Raises:
        ManifestError: If tar shards cannot be opened.
        OSError: If there is no such file.
    """
    return TarRows(path).sha256 if is_sharded(path) else sha256_file(path)


def write_manifest(path: Path, rows: Iterable[Mapping[str, Any] | Sample]) -> None:
    """Check the rows and write them as ``.jsonl`` or ``.parquet``, atomically.

    Raises:
        ManifestError: If a row is broken, a field unknown, an id used twice, or there is no row.
        DiskError: If the disk is full or the directory cannot be written.
    """
    path = Path(path)
    check_name(path)
    samples = [
        row if isinstance(row, Sample) else parse_sample(row, f"{path.name}, row {n}", exact=True)
        for n, row in enumerate(rows, start=1)
    ]
    parts = (part for sample in samples for turn in sample.messages for part in turn.content)
    write_samples(path, samples, with_pairs=any(part.companion is not None for part in parts))


def write_samples(path: Path, samples: Iterable[Sample], with_pairs: bool = True) -> int:
    """Write samples one by one as ``.jsonl`` or ``.parquet``, atomically.

    In memory are 2,048 samples, and about 120 bytes a sample to find ids that occur twice.

    Args:
        path: The file.
        samples: Read one by one.
        with_pairs: Whether a part may have a companion, which takes a column of its own in Parquet.

    Returns:
        The number of samples.

    Raises:
        ManifestError: If there is no sample, an id occurs twice, or the name cannot be one of a
            manifest.
        DiskError: If the disk is full or the directory cannot be written.
    """
    check_name(path)
    seen: set[bytes] = set()
    rows = _unique(samples, path, seen)
    with new_file(path) as temporary:
        if path.suffix.lower() == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                for sample in rows:
                    fields = sample.model_dump(exclude_none=True, exclude_defaults=True)
                    file.write(json.dumps(fields, ensure_ascii=False) + "\n")
        else:
            schema = _SCHEMA_OF_PAIRS if with_pairs else SCHEMA
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                while group := [sample.model_dump() for sample in islice(rows, _GROUP_ROWS)]:
                    writer.write_table(pa.Table.from_pylist(group, schema=schema))
        if not seen:
            raise ManifestError(f"{path} must have at least one row, got none; add samples")
    return len(seen)


def _unique(samples: Iterable[Sample], path: Path, seen: set[bytes]) -> Iterator[Sample]:
    for sample in samples:
        digest = bytes.fromhex(sha256_bytes(sample.id.encode())[:16])
        if digest in seen:
            raise ManifestError(f"ids in {path} must be unique, got {sample.id!r} twice")
        seen.add(digest)
        yield sample


def check_name(path: Path) -> None:
    """Check that a manifest to be written can have this name.

    Raises:
        ManifestError: If it ends in anything but ``.jsonl`` or ``.parquet``, or is not UTF-8.
    """
    _check_ending(path)
    if bad := find_bad_text(str(path)):
        raise ManifestError(f"the path of a manifest must be UTF-8, got {bad}; choose another")


def _check_ending(path: Path) -> None:
    if path.suffix.lower() not in (".jsonl", ".parquet"):
        raise ManifestError(
            f"a manifest must be a .jsonl or .parquet file, got {path.name}; convert or rename it"
        )


class _JsonLines:
    """Rows of a text file: only where each line begins is held in memory."""

    def __init__(self, path: Path) -> None:
        self._path, self._starts, self._numbers = path, array("q"), array("q")
        start = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip(b" \t\r\n\xef\xbb\xbf"):
                    self._starts.append(start)
                    self._numbers.append(number)
                start += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def place(self, index: int) -> str:
        return f"{self._path}, line {self._numbers[index]}"

    def __getitem__(self, index: int) -> Sample:
        with self._path.open("rb") as file:
            file.seek(self._starts[index])
            line = file.readline()
        place = self.place(index)
        rule = f"{place}: a line must be one JSON object in UTF-8"
        return parse_sample(_from_json(line, dict, rule), place)


class _ParquetRows:
    """Rows of an Arrow table; ``messages`` are nested columns or one column of JSON strings."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_parquet(path, {"id", "messages"}) as file:
                self._table = file.read()
        except (pa.ArrowException, OSError) as error:
            raise ManifestError(
                f"{path} must be a whole Parquet file, got damaged data ({error}); copy or build "
                "the file again"
            ) from error

    def __len__(self) -> int:
        return self._table.num_rows

    def place(self, index: int) -> str:
        return f"{self._path}, row {index + 1}"

    def __getitem__(self, index: int) -> Sample:
        place = self.place(index)
        try:
            row = self._table.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            raise ManifestError(
                f"{place}: text must be UTF-8, got {error}; correct the row or remove it"
            ) from error
        if isinstance(messages := row["messages"], str):
            rule = f"{place}: messages must be a JSON list"
            row["messages"] = _from_json(messages.encode(), list, rule)
        return parse_sample(row, place)


def _from_json(text: bytes, kind: type, rule: str) -> Any:  # noqa: ANN401
    try:
        value = json.loads(text.decode("utf-8-sig"))
        if not isinstance(value, kind):
            raise ValueError(f"of type {type(value).__name__}")
    except (ValueError, RecursionError) as error:
        snippet = text[:40].decode("utf-8", "replace").strip()
        raise ManifestError(
            f"{rule}, got {snippet!r} ({error}); correct the row or remove it"
        ) from error
    return value
