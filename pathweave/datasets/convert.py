"""Conversion of data sets to manifests, with a list of what could not be used and the coverage."""

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
from pathweave.datasets.declaration import Dataset, datasets
from pathweave.datasets.foreign import FOREIGN_FORMATS, Foreign
from pathweave.datasets.reader import SplitReader
from pathweave.datasets.records import Record
from pathweave.display import Display
from pathweave.errors import ManifestError, RecipeError
from pathweave.storage.atomic import new_file
from pathweave.validation import unknown


def problems_file(manifest: Path) -> Path:
    """Return where it is listed which annotations did not become samples, and why."""
    return manifest.with_name(f"{manifest.name}.problems.jsonl")


def convert(
    name: str,
    source: Path,
    out: Path,
    seed: int = 0,
    display: Display | None = None,
    **options: Any,  # noqa: ANN401
) -> tuple[Coverage, dict[str, Any]]:
    """Write the manifest of a declared data set, or of a file of another project's format.

    Args:
        name: A declared data set, or a format.
        source: The directory below which all data sets are, or the file.
        out: The manifest, ``.jsonl`` or ``.parquet``.
        seed: Seed of what is drawn.
        display: Where progress is shown.
        options: Of a data set ``split`` and ``evaluation``, see ``convert_dataset``; of a format
            the other fields of ``Foreign``. Those of the other kind must not be given.

    Returns:
        The coverage, and the fields of a recipe's test set that score the manifest as declared.

    Raises:
        ManifestError: If an annotation file cannot be read, or no sample can be used.
        RecipeError: If there is nothing of that name, or an option does not fit.
        DiskError: If the disk is full or the directory cannot be written.
    """
    if name not in FOREIGN_FORMATS and name not in datasets():
        raise RecipeError(unknown("FORMAT", name, [*FOREIGN_FORMATS, *datasets()]))
    given = {option: value for option, value in options.items() if value}
    is_foreign = name in FOREIGN_FORMATS
    if unfit := [option for option in given if (option in ("split", "evaluation")) == is_foreign]:
        why = "" if is_foreign else ", which declares it"
        option = unfit[0].replace("_", "-")
        raise RecipeError(f"--{option} must be left out for {name}{why}; remove it")
    if is_foreign:
        return convert_foreign(source, Foreign(name, seed=seed, **given), out, display), {}
    dataset = datasets()[name]
    coverage = convert_dataset(dataset, given.get("split"), source, out, seed,
                               given.get("evaluation"), display)  # fmt: skip
    is_scored = not dataset.splits[coverage.split].learn
    return coverage, dataset.test_set(given.get("evaluation")) if is_scored else {}


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
    reader = SplitReader(dataset, name, root, out.parent, store.name, seed, evaluation)
    with ExitStack() as stack:
        if any(medium.field for medium in declared.media):
            # Takes the place of an earlier store once the manifest is whole.
            temporary = stack.enter_context(new_file(store))
            write_media_store(temporary, _stored(reader.read(), dataset))
        shown = stack.enter_context(display or Display(quiet=True))
        bar = shown.bar(f"{dataset.name} {name} (KiB)", total=_kib(files))
        return _write(out, reader.read(bar.advance), dataset.name, name)


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
        bar = shown.bar(f"{source.name} (KiB)", total=_kib([source]))
        return _write(out, foreign.read(source, out.parent, bar.advance), foreign.format, "")


def _check_out(out: Path, sources: list[Path]) -> None:
    """Check that a manifest can be written without loss of what is read."""
    check_name(out)
    written = {realpath(file) for file in (out, problems_file(out), coverage_file(out))}
    if lost := next((file for file in sources if realpath(file) in written), None):
        raise ManifestError(
            f"--out must not take the place of what is read, got {out} for {lost}; choose another "
            "name"
        )


def _kib(files: list[Path]) -> int:
    return sum(getsize(file) >> 10 for file in files if isfile(file))


def _write(out: Path, records: Iterable[Record], dataset: str, split: str) -> Coverage:
    kinds: Counter[str] = Counter()
    # Whether there is a problem is known only at the end; the list may be as long as the data set.
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as problems:
        samples = _usable(records, kinds, problems)
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
    coverage = Coverage(dataset=dataset, split=split, **kinds)
    save_coverage(coverage, out)
    return coverage


def _usable(
    records: Iterable[Record], kinds: Counter[str], problems: tempfile.SpooledTemporaryFile
) -> Iterator[Sample]:
    for record in records:
        kinds[record.kind] += record.count
        if record.sample is not None:
            yield record.sample
        elif record.kind != "left_out":
            problem = {"place": record.place, "kind": record.kind, "reason": record.reason}
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


def _stored(records: Iterable[Record], dataset: Dataset) -> Iterator[Mapping[str, Any]]:
    for medium in (medium for record in records for medium in record.media):
        stream = io.BytesIO()
        np.save(stream, np.asarray(medium.array, dtype=np.float32), allow_pickle=False)
        yield {
            "key": medium.name,
            "bytes": stream.getvalue(),
            "source": dataset.title,
            "licence": dataset.licence or dataset.terms,
        }
