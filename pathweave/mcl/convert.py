"""Converts data sets to manifests, with a list of what could not be used and the coverage."""

import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import numpy as np

from pathweave.data.coverage import Coverage, save_coverage
from pathweave.data.media_store import write_media_store
from pathweave.data.messages import Sample
from pathweave.display import Display
from pathweave.files import new_file
from pathweave.mcl.declaration import Dataset
from pathweave.mcl.foreign import Foreign
from pathweave.mcl.progress import show_bytes
from pathweave.mcl.reader import Reader, Row
from pathweave.mcl.write import write_samples


def problems_file(manifest: Path) -> Path:
    """Return where it is listed which annotations did not become samples, and why."""
    return manifest.with_name(f"{manifest.stem}.problems.jsonl")


def convert_dataset(
    dataset: Dataset,
    split: str | None,
    root: Path,
    out: Path,
    seed: int = 0,
    evaluation: str | None = None,
    display: Display | None = None,
) -> Coverage:
    """Write the manifest of one split of a declared data set.

    Beside it are written its coverage and, where there are any, all annotations that could not be
    used; media that stand in an annotation file go to a media store.

    Args:
        dataset: The declaration.
        split: Name of the split; None is the first to be scored.
        root: The directory below which all data sets are.
        out: The manifest, ``.jsonl`` or ``.parquet``.
        seed: Seed of drawn instructions, labels and rounds of conversations.
        evaluation: The way of scoring that candidate answers are for; None is the first.
        display: Where progress is shown.

    Raises:
        ManifestError: If an annotation file cannot be read, or no sample can be used.
        RecipeError: If there is no such split or way of scoring.
        DiskError: If the disk is full or the directory cannot be written.
    """
    name, declared = dataset.split(split)
    store = f"{out.stem}.media.parquet"
    reader = Reader(dataset, name, root, out.parent, store, seed, evaluation)
    if any(medium.field for medium in declared.media):
        write_media_store(out.with_name(store), _stored(reader.read(), dataset))
    size = sum(file.stat().st_size for path in declared.records if (file := root / path).is_file())
    with display or Display(quiet=True) as shown:
        bar = shown.bar(f"{dataset.name} {name} (KiB)", total=size >> 10)
        kinds = _write(out, reader.read(show_bytes(bar)))
    return _done(out, Coverage(dataset=dataset.name, split=name, **kinds))


def convert_foreign(
    source: Path, foreign: Foreign, out: Path, display: Display | None = None
) -> Coverage:
    """Write the manifest of a file of another project's format; see ``convert_dataset``.

    Raises:
        ManifestError: If the file cannot be read, or no sample can be used.
        DiskError: If the disk is full or the directory cannot be written.
    """
    size = source.stat().st_size if source.is_file() else 0
    with display or Display(quiet=True) as shown:
        bar = shown.bar(f"{source.name} (KiB)", total=size >> 10)
        kinds = _write(out, foreign.read(source, out.parent, show_bytes(bar)))
    return _done(out, Coverage(dataset=foreign.format, split="", **kinds))


def _done(out: Path, coverage: Coverage) -> Coverage:
    save_coverage(coverage, out)
    return coverage


def _write(out: Path, rows: Iterable[Row]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    # Whether there is a problem is known only at the end; the list may be as long as the data set.
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as problems:
        write_samples(out, _usable(rows, kinds, problems))
        listed = problems_file(out)
        if problems.tell() == 0:
            listed.unlink(missing_ok=True)
        else:
            problems.seek(0)
            with new_file(listed) as temporary, temporary.open("wb") as file:
                copyfileobj(problems, file)
    return kinds


def _usable(
    rows: Iterable[Row], kinds: Counter[str], problems: tempfile.SpooledTemporaryFile
) -> Iterator[Sample]:
    for row in rows:
        kinds[row.kind] += 1
        if row.sample is not None:
            yield row.sample
        elif row.kind != "left_out":
            problem = {"place": row.place, "kind": row.kind, "reason": row.reason}
            problems.write(json.dumps(problem, ensure_ascii=False).encode() + b"\n")


def _stored(rows: Iterable[Row], dataset: Dataset) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        for medium in row.media:
            stream = io.BytesIO()
            np.save(stream, np.asarray(medium.array, dtype=np.float32), allow_pickle=False)
            yield {
                "key": medium.name,
                "bytes": stream.getvalue(),
                "source": dataset.title,
                "licence": dataset.licence or dataset.terms,
            }
