"""Conversion of data sets to manifests, with a list of what could not be used and the coverage."""

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from importlib.resources import files as resources
from itertools import chain
from os.path import getsize, isdir, isfile, realpath
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pathweave.data.coverage import Coverage, coverage_file, save_coverage
from pathweave.data.manifest import check_name, write_samples
from pathweave.data.media_store import write_media_store
from pathweave.data.messages import Sample
from pathweave.data.utf8 import find_bad_text, printable
from pathweave.datasets.conversations import read_conversations
from pathweave.datasets.declaration import Dataset, datasets
from pathweave.datasets.reader import SplitReader
from pathweave.datasets.records import Advance, Record
from pathweave.display import Display
from pathweave.errors import ManifestError, RecipeError
from pathweave.storage.atomic import new_file, write_atomic
from pathweave.validation import unknown

# Files of other projects.
FOREIGN_FORMATS = ("llava", "sharegpt", "coco")


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

    Beside it are written its coverage and, where there are any, all annotations that could not be
    used; media that stand in an annotation file go to a media store.

    Args:
        name: A declared data set; or ``llava`` or ``sharegpt``: conversations, in one JSON list or
            as JSON lines; or ``coco``: captions with the lists ``images`` and ``annotations``.
        source: The directory below which all data sets are, or the file.
        out: The manifest, ``.jsonl`` or ``.parquet``.
        seed: Seed of drawn instructions, labels and rounds of conversations.
        display: Where progress is shown.
        options: Of a data set ``split`` (by default the first to be scored) and ``evaluation``, the
            way of scoring that candidate answers are for (by default the first). Of a file
            ``media``, the directory that the paths of media are relative to (by default that of
            the file); ``modality``, the type of all media (by default the names that mark their
            places); ``licence`` of the media; ``every_caption``, whether every caption is a sample
            to learn from, and not every medium a sample with all its captions as references. Those
            of the other kind must not be given.

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
        read = _foreign(name, source, out.parent, seed, **given)
        return _write(out, [source], read, Coverage(dataset=name, split=""), display), {}
    dataset, evaluation = datasets()[name], given.get("evaluation")
    part, split = dataset.split(given.get("split"))
    store = out.with_name(f"{out.name}.media.parquet")
    reader = SplitReader(dataset, part, source, out.parent, store.name, seed, evaluation)
    files = [source / path for path in split.records]
    has_arrays = any(medium.field for medium in split.media)
    # A new store takes the place of an earlier one once the manifest is whole.
    with new_file(store) if has_arrays else nullcontext() as temporary:
        if temporary is not None:
            _check_out(out, files)
            write_media_store(temporary, _stored(reader.read(), dataset))
        about = Coverage(dataset=name, split=part)
        coverage = _write(out, files, reader.read, about, display)
    return coverage, {} if split.learn else dataset.test_set(evaluation)


def _foreign(
    name: str,
    source: Path,
    base: Path,
    seed: int,
    media: Path | None = None,
    modality: str | None = None,
    every_caption: bool = False,
    licence: str | None = None,
) -> Callable[[Advance], Iterator[Record]]:
    """Return the reader of a file of another project, of options that fit."""
    if name == "coco" and modality is None:
        raise RecipeError(
            "captions must be given the type of their media, got none; add --modality image"
        )
    if name != "coco" and every_caption:
        raise RecipeError(f"--every-caption must be left out for {name}; remove it")
    for option, text in (("--modality", modality), ("--licence", licence)):
        if bad := find_bad_text(text):
            raise RecipeError(f"{option} must be text in UTF-8, got {bad}; correct it")
    if media is not None and not isdir(media):
        raise RecipeError(f"--media must be a directory, got {media}; correct it or leave it out")
    root = media or source.parent
    if name != "coco":
        return partial(read_conversations, source, root, base, modality, licence)
    declared = (resources("pathweave.datasets") / "coco.yaml").read_bytes()
    dataset = Dataset.model_validate(yaml.safe_load(declared))
    split = dataset.splits["learn" if every_caption else "score"]
    # Copies are not validated: the path of a file need not be UTF-8.
    shown = split.media[0].model_copy(update={"modality": modality})
    split = split.model_copy(update={"records": (f"{source.absolute()}",), "media": (shown,)})
    update = {"title": printable(source.name), "licence": licence, "splits": {"": split}}
    return SplitReader(dataset.model_copy(update=update), "", root, base, seed=seed).read


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


def _check_out(out: Path, sources: list[Path]) -> None:
    """Check that a manifest can be written without loss of what is read."""
    check_name(out)
    written = {realpath(file) for file in (out, problems_file(out), coverage_file(out))}
    if lost := next((file for file in sources if realpath(file) in written), None):
        raise ManifestError(
            f"--out must not take the place of what is read, got {out} for {lost}; choose another"
        )


def _write(
    out: Path,
    sources: list[Path],
    read: Callable[[Advance], Iterator[Record]],
    coverage: Coverage,
    display: Display | None,
) -> Coverage:
    """Write the samples that are read, what could not be used, and the coverage."""
    _check_out(out, sources)
    size = sum(getsize(file) >> 10 for file in sources if isfile(file))
    kinds, problems = Counter[str](), list[dict[str, str]]()
    with display or Display(quiet=True) as bars:
        bar = bars.bar(f"{coverage.dataset} {coverage.split} (KiB)", total=size)
        samples = _usable(read(bar.advance), kinds, problems)
        if (sample := next(samples, None)) is None:
            counts = ", ".join(f"{n:,} {kind}" for kind, n in kinds.items()).replace("_", " ")
            first = "; the first: {place}: {reason}".format(**problems[0]) if problems else ""
            raise ManifestError(
                f"{out} must get at least one sample that can be used, got "
                f"{counts or 'no annotation at all; download or write the file again'}{first}"
            )
        write_samples(out, chain([sample], samples))
    problems_file(out).unlink(missing_ok=True)
    if problems:
        lines = [json.dumps(problem, ensure_ascii=False) + "\n" for problem in problems]
        write_atomic(problems_file(out), printable("".join(lines)).encode())
    coverage = coverage.model_copy(update=kinds)
    save_coverage(coverage, out)
    return coverage


def _usable(
    records: Iterable[Record], kinds: Counter[str], problems: list[dict[str, str]]
) -> Iterator[Sample]:
    """Yield the samples; count what is read and list what cannot be used."""
    for record in records:
        kinds[record.kind] += record.count
        if record.sample is not None:
            yield record.sample
        elif record.kind != "left_out":
            problem = {"place": record.place, "kind": record.kind, "reason": record.reason}
            problems.append(problem)
