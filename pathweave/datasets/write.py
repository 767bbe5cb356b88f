"""Writes manifests sample by sample, however many there are."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pathweave.data.manifest import SCHEMA
from pathweave.data.messages import Part, Sample
from pathweave.datasets.utf8 import find_bad_text
from pathweave.errors import ManifestError
from pathweave.storage.atomic import new_file, sha256_bytes

_GROUP_ROWS = 2048


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples as ``.jsonl`` or ``.parquet``; the file appears whole or not at all.

    In memory are 2,048 samples, and about 120 bytes a sample to find ids that occur twice.

    Args:
        path: The file.
        samples: Read one by one.

    Returns:
        The number of samples.

    Raises:
        ManifestError: If there is no sample, an id occurs twice, or the file's ending is another.
        DiskError: If the disk is full or the directory cannot be written.
    """
    check_ending(path)
    write = _write_lines if path.suffix == ".jsonl" else _write_table
    with new_file(path) as temporary:
        count = write(temporary, _unique(samples, path))
        if count == 0:
            raise ManifestError(f"{path} must get at least one sample, got none; add samples")
    return count


def check_ending(path: Path) -> None:
    """Check that a manifest can have this name.

    Raises:
        ManifestError: If it ends in anything but ``.jsonl`` or ``.parquet``, or is not UTF-8.
    """
    if path.suffix not in (".jsonl", ".parquet"):
        raise ManifestError(
            f"a manifest must end in .jsonl or .parquet, got {path.name}; rename it"
        )
    if bad := find_bad_text(str(path)):
        raise ManifestError(f"the path of a manifest must be UTF-8, got {bad}; choose another")


def _unique(samples: Iterable[Sample], path: Path) -> Iterator[Sample]:
    seen: set[bytes] = set()
    for sample in samples:
        digest = bytes.fromhex(sha256_bytes(sample.id.encode())[:16])
        if digest in seen:
            raise ManifestError(f"ids in {path} must be unique, got {sample.id!r} twice")
        seen.add(digest)
        yield sample


def _write_lines(path: Path, samples: Iterator[Sample]) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, sample in enumerate(samples, start=1):  # noqa: B007
            fields = sample.model_dump(exclude_none=True, exclude_defaults=True)
            file.write(json.dumps(fields, ensure_ascii=False) + "\n")
    return count


def _write_table(path: Path, samples: Iterator[Sample]) -> int:
    count = 0
    with pq.ParquetWriter(path, _schema(), compression="zstd") as writer:
        while rows := [sample.model_dump() for sample in islice(samples, _GROUP_ROWS)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=_schema()))
            count += len(rows)
    return count


def _schema() -> pa.Schema:
    """Return the schema of manifests with every field that a part can have."""
    part = pa.struct([(name, pa.string()) for name in Part.model_fields])
    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.list_(part))]))
    index = SCHEMA.get_field_index("messages")
    return SCHEMA.set(index, pa.field("messages", messages, nullable=False))
