"""A store of features: many small tensors in a few large files, found by key.

NAME.features   records one after another: a header of 64 bytes, then the values
NAME.index      an entry of 16 bytes for each record: begin of its key, and where it begins
NAME.lock       held by the one process that appends to the two

Every writer appends to a segment of its own, so many may write at once, on one machine or on
several that share a directory; nothing is ever changed or moved. A record is entered in the index
once it is there, and holds its key and a checksum: what a kill, a full disk or a power cut has left
half written is passed over, as is any other damage. Of several records of a key one is read. In
memory are 16 bytes a record; the files are mapped.
"""

import contextlib
import math
import mmap
import os
import secrets
import struct
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from torch import Tensor

from pathweave.storage.atomic import disk_errors

SEGMENT_BYTES = 4 << 30  # from which on nothing is appended to a segment
ELSEWHERE = "elsewhere.txt"

_FEATURES, _INDEX, _LOCK = ".features", ".index", ".lock"
_MAGIC = b"PWfeat01"
_HEADER = struct.Struct("<8s32s3I2I4x")  # magic, key, shape, number of the type, checksum
_CHECKED = 8 + 32 + 3 * 4 + 4  # bytes of the header before the checksum
_ENTRY = np.dtype([("key", "<u8"), ("offset", "<u8")])
_TYPES = (torch.float16, torch.float32)
_OFFSET_BITS = 48  # of a place: above them is the number of the segment
_MAPPED = 64  # segments that are mapped at once: each takes a file descriptor
_RECENT = 4096  # records that are not sorted in, at most, or a 64th of all

_Record = tuple[Path, mmap.mmap, int, int, tuple[int, ...], torch.dtype]


class FeatureStore:
    """Features by key in one directory, which many processes may read and write at once.

    It may be deleted at any time. A process that is forked gets a segment of its own.

    Args:
        directory: Where the files are; made on the first write. A file ``elsewhere.txt`` in it
            names directories, one a line, whose segments are read too.
        segment_bytes: Size of a segment from which on nothing is appended to it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     FeatureStore(Path(directory)).add(bytes(32), torch.ones(1, 3, 8))
        ...     FeatureStore(Path(directory)).find(bytes(32)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = Path(directory)
        self._segment_bytes = segment_bytes
        self._lock = threading.RLock()
        self._writers: dict[int, _Writer] = {}
        self._forget()

    def _forget(self) -> None:
        self._segments: list[Path] = []
        self._indexed: dict[Path, int] = {}  # bytes of each index that have been read
        self._maps: OrderedDict[int, mmap.mmap] = OrderedDict()
        # Sorted by the begin of the key; those that came since are in a dictionary.
        self._keys, self._places = np.empty(0, np.uint64), np.empty(0, np.uint64)
        self._recent: dict[int, list[int]] = {}
        self._num_recent = 0

    def __reduce__(self) -> tuple[type["FeatureStore"], tuple[Path, int]]:
        return FeatureStore, (self.directory, self._segment_bytes)

    def find(self, key: bytes) -> Float[Tensor, "units tokens width"] | None:
        """Return the features of a key as they were added, or None: absent, or damaged.

        Args:
            key: 32 bytes.
        """
        with self._lock:
            for record in self._records(key):
                if (features := _features(record)) is not None:
                    return features
        return None

    def __contains__(self, key: bytes) -> bool:
        """Return whether there is a record of a key; its values are not looked at."""
        return self.segment_of(key) is not None

    def segment_of(self, key: bytes) -> Path | None:
        """Return the file that has a record of a key, or None; its values are not looked at."""
        with self._lock:
            return next((segment for segment, *_ in self._records(key)), None)

    def add(self, key: bytes, features: Float[Tensor, "units tokens width"]) -> None:
        """Append a record; it is there for every process when this returns.

        It is not synced: after a power cut it may be gone.

        Args:
            key: 32 bytes.
            features: In float16 or float32.

        Raises:
            DiskError: If the disk is full or the directory cannot be written.
        """
        values = features.contiguous().numpy().tobytes()
        kind = _TYPES.index(features.dtype)
        head = _HEADER.pack(_MAGIC, key, *features.shape, kind, 0)[:_CHECKED]
        checksum = struct.pack("<I", zlib.crc32(values, zlib.crc32(head)))
        record = b"".join((head, checksum.ljust(_HEADER.size - _CHECKED, b"\0"), values))
        with self._lock, disk_errors(self.directory):
            writer = self._writers.get(os.getpid())
            if writer is None or writer.is_over(self._segment_bytes):
                # A writer of the process that this one was forked from is kept: dropping it here
                # would give up its lock there.
                writer = self._writers[os.getpid()] = self._new_writer()
            writer.append(record, _begin(key))

    def size(self) -> tuple[int, int, int]:
        """Return how many keys there are, and the bytes and the number of the files.

        Those elsewhere are counted too.
        """
        with self._lock:
            self._refresh()
            self._sort_in()
            files = [
                file
                for path in self._segments
                for file in (path, path.with_suffix(_INDEX), path.with_suffix(_LOCK))
                if file.exists()
            ]
            return len(np.unique(self._keys)), sum(f.stat().st_size for f in files), len(files)

    def clear(self) -> None:
        """Delete the segments of this directory; those elsewhere are no longer read.

        Raises:
            DiskError: If they cannot be deleted.
        """
        with self._lock, disk_errors(self.directory):
            for kind in (_INDEX, _FEATURES, _LOCK):
                for path in self.directory.glob(f"[!.]*{kind}"):
                    path.unlink(missing_ok=True)
            (self.directory / ELSEWHERE).unlink(missing_ok=True)
            self._forget()

    @property
    def elsewhere(self) -> list[Path]:
        """Other directories whose segments are read."""
        try:
            text = (self.directory / ELSEWHERE).read_text(encoding="utf-8")
        except OSError:
            return []
        return [self.directory / line for line in text.splitlines() if line]

    def _records(self, key: bytes) -> Iterator[_Record]:
        """Yield the records of a key, at the end those added since the last look."""
        seen = set()
        for is_again in (False, True):
            if is_again:
                self._refresh()
            for place in self._places_of(key):
                if place not in seen and (record := self._record(key, place)) is not None:
                    seen.add(place)
                    yield record

    def _refresh(self) -> None:
        """Take note of what has been added to any segment since the last time."""
        for directory in (self.directory, *self.elsewhere):
            with contextlib.suppress(OSError), os.scandir(directory) as entries:
                for entry in entries:
                    if entry.name.endswith(_INDEX):
                        self._read_index(directory / entry.name, entry.stat().st_size)
        if self._num_recent > max(_RECENT, len(self._keys) // 64):
            self._sort_in()

    def _read_index(self, path: Path, size: int) -> None:
        """Read what has been appended to an index; what is half an entry is left for later."""
        if path not in self._indexed:
            self._segments.append(path.with_suffix(_FEATURES))
            self._indexed[path] = 0
        if size - self._indexed[path] < _ENTRY.itemsize:
            return
        with path.open("rb") as file:
            file.seek(self._indexed[path])
            data = file.read()
        entries = np.frombuffer(data[: len(data) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
        self._indexed[path] += entries.nbytes
        number = self._segments.index(path.with_suffix(_FEATURES))
        offsets = entries["offset"] & np.uint64((1 << _OFFSET_BITS) - 1)
        places = offsets | np.uint64(number << _OFFSET_BITS)
        if len(entries) > _RECENT:
            self._sort_in(entries["key"], places)
            return
        for begin, place in zip(entries["key"].tolist(), places.tolist(), strict=True):
            self._recent.setdefault(begin, []).append(place)
        self._num_recent += len(entries)

    def _sort_in(self, *more: np.ndarray) -> None:
        """Sort recent entries in, and more of them given as begins of keys and places."""
        begins = [begin for begin, places in self._recent.items() for _ in places]
        recent = [place for places in self._recent.values() for place in places]
        added, where = more or (np.empty(0, np.uint64), np.empty(0, np.uint64))
        keys = np.concatenate([self._keys, np.array(begins, np.uint64), added])
        order = np.argsort(keys, kind="stable")
        places = np.concatenate([self._places, np.array(recent, np.uint64), where])
        self._keys, self._places = keys[order], places[order]
        self._recent, self._num_recent = {}, 0

    def _places_of(self, key: bytes) -> Iterator[int]:
        """Yield the places of records whose keys begin alike, the newest first."""
        begin = _begin(key)
        yield from reversed(self._recent.get(begin, ()))
        at = int(np.searchsorted(self._keys, np.uint64(begin)))
        while at < len(self._keys) and self._keys[at] == begin:
            yield int(self._places[at])
            at += 1

    def _record(self, key: bytes, place: int) -> _Record | None:
        """Return where a record and its values are; None if it is another key's, or damaged."""
        number, offset = place >> _OFFSET_BITS, place & ((1 << _OFFSET_BITS) - 1)
        start = offset + _HEADER.size
        if (mapped := self._map(number, start)) is None:
            return None
        magic, own, *shape, kind, _ = _HEADER.unpack_from(mapped, offset)
        if magic != _MAGIC or own != key or kind >= len(_TYPES):
            return None
        end = start + _TYPES[kind].itemsize * math.prod(shape)
        if (mapped := self._map(number, end)) is None:
            return None
        return self._segments[number], mapped, offset, end, tuple(shape), _TYPES[kind]

    def _map(self, number: int, end: int) -> mmap.mmap | None:
        """Return a segment mapped up to ``end`` at least; None if it is shorter or gone."""
        mapped = self._maps.get(number)
        if mapped is None or len(mapped) < end:
            try:
                with self._segments[number].open("rb") as file:
                    if os.fstat(file.fileno()).st_size < end:
                        return None
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except OSError:
                return None
            self._maps[number] = mapped
        self._maps.move_to_end(number)
        if len(self._maps) > _MAPPED:
            self._maps.popitem(last=False)
        return mapped

    def _new_writer(self) -> "_Writer":
        """Return a writer to a segment that nobody appends to, or to a new one."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # the directory was deleted just now
                self.directory.mkdir(parents=True, exist_ok=True)
                segments = sorted(self.directory.glob(f"*{_FEATURES}"))
                for path in (s for s in segments if s.stat().st_size < self._segment_bytes):
                    if (lock := _locked(path)) is not None:
                        return _Writer(path, lock)
                path = self.directory / f"{secrets.token_hex(8)}{_FEATURES}"
                return _Writer(path, _locked(path))


def _locked(path: Path) -> FileLock | None:
    """Return the lock of a segment; None if another has it, or the file system knows no locks."""
    lock = FileLock(path.with_suffix(_LOCK), thread_local=False)
    try:
        lock.acquire(blocking=False)
    except (Timeout, NotImplementedError):
        return None
    return lock


class _Writer:
    """What appends to a segment, alone."""

    def __init__(self, path: Path, lock: FileLock | None) -> None:
        self._lock = lock  # given up when this object goes, or its process ends
        self._features = path.open("ab", buffering=0)
        weakref.finalize(self, self._features.close)
        self._index = path.with_suffix(_INDEX).open("ab", buffering=0)
        weakref.finalize(self, self._index.close)

    def is_over(self, most: int) -> bool:
        """Return whether the segment is full, or has been deleted."""
        about = os.fstat(self._features.fileno())
        return about.st_size >= most or about.st_nlink == 0

    def append(self, record: bytes, begin: int) -> None:
        offset = _append(self._features, record, 64)
        _append(self._index, np.array([(begin, offset)], _ENTRY).tobytes(), _ENTRY.itemsize)


def _append(file: FileIO, data: bytes, step: int) -> int:
    """Append data from a multiple of ``step`` on, whatever a writer that was killed has left."""
    size = file.seek(0, os.SEEK_END)
    left = memoryview(b"\0" * (-size % step) + data)
    while left:
        left = left[file.write(left) :]
    return size + -size % step


def _features(record: _Record) -> Tensor | None:
    """Return the values of a record, or None if they are damaged."""
    _, mapped, offset, end, shape, dtype = record
    values = bytearray(memoryview(mapped)[offset + _HEADER.size : end])
    [checksum] = struct.unpack_from("<I", mapped, offset + _CHECKED)
    if checksum != zlib.crc32(values, zlib.crc32(mapped[offset : offset + _CHECKED])):
        return None
    if not values:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(values, dtype=dtype).reshape(shape)


def _begin(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")
