"""A media store: many small media in one Parquet file, read row by row.

Columns: ``key`` (string, unique) and ``bytes`` (binary), and for the record ``object``, ``source``,
``licence``, ``attribution`` (strings or null).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pathweave.errors import ManifestError, MediaError
from pathweave.storage.atomic import new_file
from pathweave.validation import unknown

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("bytes", pa.binary(), nullable=False),
        *((name, pa.string()) for name in ("object", "source", "licence", "attribution")),
    ]
)

# A row group is the least that can be read at once.
_GROUP_ROWS = 64
_GROUP_BYTES = 1 << 20

# Row groups kept in memory, so that neighbours and small stores are read from disk once.
_KEPT_BYTES = 64 << 20


class MediaStore:
    """Reads media by key; holds the keys and a bounded number of row groups in memory.

    Args:
        path: The Parquet file.

    Raises:
        ManifestError: If the file is missing, not Parquet, or lacks a column.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = Path(directory) / "media.parquet"
        ...     write_media_store(path, [{"key": "a", "bytes": b"..."}])
        ...     MediaStore(path).read("a")
        b'...'
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._kept: OrderedDict[int, pa.ChunkedArray] = OrderedDict()
        self._file = open_parquet(path, {"key", "bytes"})
        self._places = {
            key: (group, row)
            for group in range(self._file.num_row_groups)
            for row, key in enumerate(
                self._file.read_row_group(group, columns=["key"])["key"].to_pylist()
            )
        }

    def __len__(self) -> int:
        return len(self._places)

    def __reduce__(self) -> tuple[type["MediaStore"], tuple[Path]]:
        return MediaStore, (self.path,)

    def read(self, key: str) -> bytes:
        """Return the bytes of a medium.

        Raises:
            MediaError: If there is no such key, or the file is damaged there.
        """
        if key not in self._places:
            raise MediaError(
                f"{self.path} must hold the key {key!r}, got {len(self)} others; correct the key"
            )
        group, row = self._places[key]
        with self._lock:
            if group not in self._kept:
                try:
                    self._kept[group] = self._file.read_row_group(group, columns=["bytes"])["bytes"]
                except (pa.ArrowException, OSError) as error:
                    raise MediaError(
                        f"{self.path} must be a whole Parquet file, got a damaged row group "
                        f"{group} ({error}); copy it again"
                    ) from error
            self._kept.move_to_end(group)
            while len(self._kept) > 1 and sum(g.nbytes for g in self._kept.values()) > _KEPT_BYTES:
                self._kept.popitem(last=False)
            return self._kept[group][row].as_py()


def open_parquet(path: Path, needed: set[str]) -> pq.ParquetFile:
    """Open a Parquet file and check that it has the columns.

    Raises:
        ManifestError: If the file is missing, not Parquet, or lacks a column.
    """
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except FileNotFoundError as error:
        raise ManifestError(f"{path} must exist, got no such file; correct the path") from error
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{path} must be a whole Parquet file, got damaged data ({error}); copy it again"
        ) from error
    columns = file.schema_arrow.names
    if missing := sorted(needed - set(columns)):
        raise ManifestError(
            f"{path} must have the columns {', '.join(sorted(needed))}, got {', '.join(columns)}; "
            f"add {', '.join(missing)} or rename a column"
        )
    return file


def write_media_store(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a media store; the file appears whole or not at all.

    Args:
        path: The file to write.
        rows: A mapping for each medium: ``key`` and ``bytes``, and any of ``object``, ``source``,
            ``licence``, ``attribution``. Read one by one, so they may come from a generator.

    Raises:
        ManifestError: If a key is missing or occurs twice, or a field is unknown.
        DiskError: If the disk is full or the directory cannot be written.
    """
    with (
        new_file(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="none", use_dictionary=False) as writer,
    ):
        for group in _groups(rows, path):
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))


def _groups(rows: Iterable[Mapping[str, Any]], path: Path) -> Iterable[list[Mapping[str, Any]]]:
    seen: set[str] = set()
    group: list[Mapping[str, Any]] = []
    num_bytes = 0
    for row in rows:
        key = row.get("key")
        if not isinstance(key, str) or not isinstance(row.get("bytes"), bytes):
            raise ManifestError(
                f"rows of {path} must have a string 'key' and 'bytes', got {sorted(row)}; add them"
            )
        if key in seen:
            raise ManifestError(f"keys of {path} must be unique, got {key!r} twice; number them")
        if extra := sorted(row.keys() - set(SCHEMA.names)):
            raise ManifestError(f"{path}: {unknown('a field', extra[0], SCHEMA.names)}")
        seen.add(key)
        group.append(row)
        num_bytes += len(row["bytes"])
        if len(group) >= _GROUP_ROWS or num_bytes >= _GROUP_BYTES:
            yield group
            group, num_bytes = [], 0
    if group:
        yield group
