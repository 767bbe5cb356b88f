"""Converts data sets to manifests, with a list of what could not be used and the coverage."""

import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from os.path import getsize, isfile, realpath
from pathlib import Path
from shutil import copyfileobj
from typing import Any

import numpy as np

from pathweave.data.coverage import Coverage, coverage_file, save_coverage
from pathweave.data.manifest import check_name, write_samples
from pathweave.data.media_store import write_media_store
from pathweave.data.messages import Sample
from pathweave.data.utf8 import printable
from pathweave.datasets.declaration import Dataset
from pathweave.datasets.foreign import Foreign
from pathweave.datasets.progress import show_bytes
from pathweave.datasets.reader import Reader, Row
from pathweave.display import Display
from pathweave.errors import ManifestError
from pathweave.storage.atomic import new_file


def problems_file(manifest: Path) -> Path:
    """Return where it is listed which annotations did not become samples, and why."""
    return manifest.with_name(f"{manifest.name}.problems.jsonl")


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
    store = out.with_name(f"{out.name}.media.parquet")
    files = [root / path for path in declared.records]
    _check_out(out, files)
    reader = Reader(dataset, name, root, out.parent, store.name, seed, evaluation)
    with ExitStack() as stack:
        if any(medium.field for medium in declared.media):
            # Takes the place of an earlier store once the manifest is whole.
            temporary = stack.enter_context(new_file(store))
            write_media_store(temporary, _stored(reader.read(), dataset))
        shown = stack.enter_context(display or Display(quiet=True))
        bar = shown.bar(f"{dataset.name} {name} (KiB)", total=_size(files) >> 10)
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
    _check_out(out, [source])
    with display or Display(quiet=True) as shown:
        bar = shown.bar(f"{source.name} (KiB)", total=_size([source]) >> 10)
        kinds = _write(out, foreign.read(source, out.parent, show_bytes(bar)))
    return _done(out, Coverage(dataset=foreign.format, split="", **kinds))


def _check_out(out: Path, sources: list[Path]) -> None:
    """Check that a manifest can be written without loss of what is read."""
    check_name(out)
    written = {realpath(file) for file in (out, problems_file(out), coverage_file(out))}
    if lost := next((file for file in sources if realpath(file) in written), None):
        raise ManifestError(
            f"--out must not take the place of what is read, got {out} for {lost}; choose another "
            "name"
        )


def _size(files: list[Path]) -> int:
    return sum(getsize(file) for file in files if isfile(file))


def _done(out: Path, coverage: Coverage) -> Coverage:
    save_coverage(coverage, out)
    return coverage


def _write(out: Path, rows: Iterable[Row]) -> Counter[str]:
    kinds: Counter[str] = Counter()
    # Whether there is a problem is known only at the end; the list may be as long as the data set.
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as problems:
        samples = _usable(rows, kinds, problems)
        if (first := next(samples, None)) is None:
            raise ManifestError(_none_usable(out, kinds, problems))
        write_samples(out, chain([first], samples))
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
        kinds[row.kind] += row.count
        if row.sample is not None:
            yield row.sample
        elif row.kind != "left_out":
            problem = {"place": row.place, "kind": row.kind, "reason": row.reason}
            line = printable(json.dumps(problem, ensure_ascii=False))
            problems.write(line.encode() + b"\n")


def _none_usable(out: Path, kinds: Counter[str], problems: tempfile.SpooledTemporaryFile) -> str:
    rule = f"{out} must get at least one sample that can be used"
    if not kinds:
        return f"{rule}, got no annotation at all; download or write the file again"
    counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items()).replace("_", " ")
    problems.seek(0)
    first = problems.readline()
    shown = "; the first: {place}: {reason}".format(**json.loads(first)) if first else ""
    return f"{rule}, got {counts}{shown}"


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
