"""Conversion of data sets to manifests, with a list of what could not be used and the coverage."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.resources import files as resources
from itertools import chain
from os.path import getsize, isdir, isfile, realpath
from pathlib import Path
from typing import Any

import yaml

from pathweave.data.coverage import Coverage, coverage_file, save_coverage
from pathweave.data.manifest import check_name, write_samples
from pathweave.data.media_store import write_media_store
from pathweave.data.messages import Sample
from pathweave.data.utf8 import find_bad_text, printable
from pathweave.datasets.conversations import read_conversations, usual_columns
from pathweave.datasets.declaration import Dataset, Layout, datasets
from pathweave.datasets.media_files import MediaPlaces, content_of
from pathweave.datasets.reader import SplitReader
from pathweave.datasets.records import Advance, Record, read_records
from pathweave.datasets.saved_datasets import find_saved, read_saved
from pathweave.display import Bar, Display
from pathweave.errors import ManifestError, RecipeError
from pathweave.storage.atomic import new_file, write_atomic
from pathweave.validation import unknown

# What may be said of a data set that is declared, and of files of other projects.
_DECLARED = ("split", "evaluation")
_FOREIGN = ("media", "modality", "licence")
OPTIONS = {
    **dict.fromkeys(("llava", "sharegpt", "ms-swift"), _FOREIGN),
    "coco": (*_FOREIGN, "every_caption"),
    "huggingface": (*_FOREIGN, "split", "label", "question"),
}


@dataclass(frozen=True)
class _Source:
    """What is read: its files, its records, what they are a part of, and whether media stand in it.

    ``terms`` are those of its media.
    """

    files: Sequence[Path]
    read: Callable[[Advance], Iterator[Record]]
    about: Coverage
    title: str
    terms: str = ""
    has_media: bool = False

    def bar(self, bars: Display) -> Bar:
        size = sum(getsize(file) >> 10 for file in self.files if isfile(file))
        return bars.bar(f"{self.about.dataset} {self.about.split} (KiB)", total=size)

    def stored(self, advance: Advance) -> Iterator[Mapping[str, Any]]:
        """Yield the media that stand in the source, as rows of a media store."""
        for medium in (medium for record in self.read(advance) for medium in record.media):
            about = {"source": self.title, "licence": self.terms}
            yield {"key": medium.name, "bytes": content_of(medium), **about}


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
        name: A declared data set; or ``llava``, ``sharegpt`` or ``ms-swift``: conversations, in one
            JSON list or as JSON lines; or ``coco``: captions with the lists ``images`` and
            ``annotations``; or ``huggingface``: a directory of Arrow or Parquet files.
        source: The directory below which all data sets are, or the file or directory.
        out: The manifest, ``.jsonl`` or ``.parquet``.
        seed: Seed of drawn instructions, labels and rounds of conversations.
        display: Where progress is shown.
        options: Of a data set ``split`` (by default the first to be scored) and ``evaluation``, the
            way of scoring that candidate answers are for (by default the first). Of files of other
            projects ``media``, the directory that the paths of media are relative to (by default
            that of the file); ``modality``, the type of all media (by default the names that mark
            their places); ``licence`` of the media. Of ``coco`` also ``every_caption``, whether
            every caption is a sample to learn from, and not every medium a sample with all its
            captions as references. Of ``huggingface`` also ``split``; ``label``, the column of
            answers, and ``question``, what is asked about every medium, where rows are no
            conversations. Those that do not fit must not be given.

    Returns:
        The coverage, and the fields of a recipe's test set that score the manifest as declared.

    Raises:
        ManifestError: If an annotation file cannot be read, or no sample can be used.
        RecipeError: If there is nothing of that name, or an option does not fit.
        DiskError: If the disk is full or the directory cannot be written.
    """
    if name not in OPTIONS and name not in datasets():
        raise RecipeError(unknown("FORMAT", name, [*OPTIONS, *datasets()]))
    given = {option: value for option, value in options.items() if value}
    if unfit := [option for option in given if option not in OPTIONS.get(name, _DECLARED)]:
        why = "" if name in OPTIONS else ", which declares it"
        option = unfit[0].replace("_", "-")
        raise RecipeError(f"--{option} must be left out for {name}{why}; remove it")
    store = out.with_name(f"{out.name}.media.parquet")
    fields: dict[str, Any] = {}
    if name in OPTIONS:
        found = _foreign(name, source, store, seed, **given)
    else:
        dataset, evaluation = datasets()[name], given.get("evaluation")
        part, split = dataset.split(given.get("split"))
        reader = SplitReader(dataset, part, source, out.parent, store.name, seed, evaluation)
        found = _Source(
            files=[source / path for path in split.records],
            read=reader.read,
            about=Coverage(dataset=name, split=part),
            title=dataset.title,
            terms=dataset.licence or dataset.terms,
            has_media=any(medium.field for medium in split.media),
        )
        fields = {} if split.learn else dataset.test_set(evaluation)
    _check_out(out, store, found.files)
    with display or Display(quiet=True) as bars:
        bar = found.bar(bars)
        stored = found.stored(bar.advance) if found.has_media else iter(())
        first = next(stored, None)
        # A new store takes the place of an earlier one once the manifest is whole.
        with new_file(store) if first else nullcontext() as temporary:
            if first and temporary is not None:
                write_media_store(temporary, chain([first], stored))
            bar.close()
            return _write(out, found, bars), fields


def _foreign(
    name: str,
    source: Path,
    store: Path,
    seed: int,
    media: Path | None = None,
    modality: str | None = None,
    licence: str | None = None,
    **options: Any,  # noqa: ANN401
) -> _Source:
    """Return what is read of another project, of options that fit."""
    if name == "coco" and modality is None:
        raise RecipeError(
            "captions must be given the type of their media, got none; add --modality image"
        )
    for option, text in (
        *(("--modality", modality), ("--licence", licence)),
        *((f"--{option}", options.get(option)) for option in ("label", "question")),
    ):
        if bad := find_bad_text(text):
            raise RecipeError(f"{option} must be text in UTF-8, got {bad}; correct it")
    if media is not None and not isdir(media):
        raise RecipeError(f"--media must be a directory, got {media}; correct it or leave it out")
    title = printable(source.name)
    coverage = Coverage(dataset=name, split="")
    is_directory = name == "huggingface" and source.is_dir()
    root = media or (source if is_directory else source.parent)
    if name == "coco":
        every_caption = bool(options.get("every_caption"))
        read = _captions(source, store.parent, seed, root, str(modality), licence, every_caption)
        return _Source([source], read, coverage, title)
    about = {"licence": licence, "source": title}
    has_media = name in ("ms-swift", "huggingface")
    places = MediaPlaces(root, store.parent, store.name if has_media else None, modality)
    if name == "huggingface":
        saved = find_saved(source, options.get("split"))
        how = (places, about, options.get("label"), options.get("question"))
        read = partial(read_saved, saved, *how)
        coverage = Coverage(dataset=name, split=saved.split)
        return _Source(saved.files, read, coverage, title, licence or "", has_media)
    layout = Layout(format="jsonl" if source.suffix.lower() == ".jsonl" else "json")
    columns = usual_columns() if name == "ms-swift" else None

    def conversations(advance: Advance) -> Iterator[Record]:
        records = read_records(source, layout, advance)
        return read_conversations(records, places, about, columns)

    return _Source([source], conversations, coverage, title, licence or "", has_media)


def _captions(
    source: Path,
    base: Path,
    seed: int,
    root: Path,
    modality: str,
    licence: str | None,
    every_caption: bool,
) -> Callable[[Advance], Iterator[Record]]:
    """Return the reader of a file of captions."""
    declared = (resources("pathweave.datasets") / "coco.yaml").read_bytes()
    dataset = Dataset.model_validate(yaml.safe_load(declared))
    split = dataset.splits["learn" if every_caption else "score"]
    # Copies are not validated: the path of a file need not be UTF-8.
    shown = split.media[0].model_copy(update={"modality": modality})
    split = split.model_copy(update={"records": (f"{source.absolute()}",), "media": (shown,)})
    update = {"title": printable(source.name), "licence": licence, "splits": {"": split}}
    return SplitReader(dataset.model_copy(update=update), "", root, base, seed=seed).read


def _check_out(out: Path, store: Path, sources: Sequence[Path]) -> None:
    """Check that a manifest can be written without loss of what is read."""
    check_name(out)
    written = {realpath(file) for file in (out, store, problems_file(out), coverage_file(out))}
    if lost := next((file for file in sources if realpath(file) in written), None):
        raise ManifestError(
            f"--out must not take the place of what is read, got {out} for {lost}; choose another"
        )


def _write(out: Path, source: _Source, bars: Display) -> Coverage:
    """Write the samples that are read, what could not be used, and the coverage."""
    kinds, problems = Counter[str](), list[dict[str, str]]()
    samples = _usable(source.read(source.bar(bars).advance), kinds, problems)
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
    coverage = source.about.model_copy(update=kinds)
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
