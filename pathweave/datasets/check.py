"""Check of the original data sets under a root: what there is, and what is wrong with it."""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from os.path import getsize, isdir, lexists
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from pathweave.data.coverage import Coverage
from pathweave.data.utf8 import printable
from pathweave.datasets.declaration import Dataset, datasets, find_dataset
from pathweave.datasets.media_files import check_medium, is_file
from pathweave.datasets.reader import SplitReader
from pathweave.display import Display
from pathweave.errors import ManifestError, MediaError
from pathweave.storage.atomic import sha256_file

LISTED = 20


class AnnotationFile(BaseModel, frozen=True):
    """A file of annotations.

    Args:
        path: Its path under the root.
        num_bytes: Its size; None if it is not there or cannot be read.
        sha256: Its hash, if asked for.
        problem: Why it cannot be read though something of its name is there, or an empty text.
    """

    path: str
    num_bytes: int | None
    sha256: str | None = None
    problem: str = ""


class SplitReport(BaseModel, frozen=True):
    """What was found of one split.

    Args:
        dataset: Name of the data set.
        split: Name of the split.
        state: ``absent``: none of its annotation files is there; ``damaged``: they cannot be read,
            or only some of them are there; ``found`` otherwise.
        files: Its annotation files.
        coverage: What became of the annotated samples; None unless they were read.
        corrupt: Samples of which a medium is on disk but broken; they count as usable in coverage
            until they are decoded.
        published: Number of samples as published, if known.
        paper: Number of samples in the paper's runs, if known.
        problems: The first problems of each kind (missing, broken, flawed, corrupt), with file and
            row.
    """

    dataset: str
    split: str
    state: Literal["absent", "damaged", "found"]
    files: list[AnnotationFile]
    coverage: Coverage | None = None
    corrupt: int = 0
    published: int | None = None
    paper: int | None = None
    problems: list[str] = []

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values; coverage also in words, as scores show it."""
        shown = str(self.coverage) if self.coverage else None
        return {**self.model_dump(), "samples": shown}

    @property
    def is_sound(self) -> bool:
        """Whether nothing is broken; media that are not on disk do not count."""
        broken = self.coverage.broken + self.coverage.flawed if self.coverage else 0
        return self.state != "damaged" and not broken and not self.corrupt


def check_root(
    root: Path,
    only: Iterable[str] = (),
    hashes: bool = False,
    decode: bool = False,
    listed: int | None = LISTED,
    display: Display | None = None,
) -> list[SplitReport]:
    """Report what there is of every data set under a root.

    Args:
        root: The directory below which all data sets are.
        only: Names of data sets to look for; by default all.
        hashes: Whether to hash annotation files.
        decode: Whether to decode every medium as a whole instead of looking at its ends.
        listed: How many problems of each kind to list for each split; None is all.
        display: Where progress is shown.

    Raises:
        ManifestError: If there is no such directory.
        RecipeError: If a name is unknown.
    """
    if not isdir(root):
        raise ManifestError(f"{root} must be a directory of data sets, got none; correct the path")
    chosen = [find_dataset(name) for name in only] or list(datasets().values())
    with display or Display(quiet=True) as shown:
        return [
            _check_split(root, dataset, name, hashes, decode, listed, shown)
            for dataset in chosen
            for name in dataset.splits
        ]


def _check_split(
    root: Path,
    dataset: Dataset,
    name: str,
    hashes: bool,
    decode: bool,
    listed: int | None,
    display: Display,
) -> SplitReport:
    """Return what there is of a split; its annotations are read if their files are all there."""
    split = dataset.splits[name]
    files = [_describe(root, path, hashes) for path in split.annotations]
    numbers = {"published": split.samples, "paper": split.paper}
    report = partial(SplitReport, dataset=dataset.name, split=name, files=files, **numbers)
    if gone := {file.path: file.problem for file in files if file.num_bytes is None}:
        if set(split.records) <= gone.keys() and not any(gone.values()):
            return report(state="absent")
        rule = "must exist, got no such file; download it (docs/datasets.md says where)"
        problems = [problem or f"{root / path} {rule}" for path, problem in gone.items()]
        return report(state="damaged", problems=problems)
    state, kinds, told, problems = "found", Counter[str](), Counter[str](), []
    size = sum((file.num_bytes or 0) >> 10 for file in files if file.path in split.records)
    bar = display.bar(f"{dataset.name} {name} (KiB)", total=size)
    try:
        for record in SplitReader(dataset, name, root).read(bar.advance):
            kinds[record.kind] += record.count
            kind, reason = f"{record.kind}", record.reason
            if kind == "usable":
                checked = (check_medium(medium, decode) for medium in record.media)
                kind, reason = "corrupt", next(filter(None, checked), "")
            if reason and kind != "left_out":
                told[kind] += 1
                if listed is None or told[kind] <= listed:
                    problems.append(f"{kind}: {record.place}: {reason}")
    except ManifestError as error:
        state = "damaged"
        problems.insert(0, str(error))
    bar.close()
    coverage = Coverage(dataset=dataset.name, split=name, **kinds)
    return report(state=state, coverage=coverage, corrupt=told["corrupt"], problems=problems)


def _describe(root: Path, path: str, hashes: bool) -> AnnotationFile:
    file = root / path
    problem = ""
    try:
        if is_file(file):
            digest = sha256_file(file) if hashes else None
            return AnnotationFile(path=path, num_bytes=getsize(file), sha256=digest)
        if lexists(file):
            problem = f"{file} must be a file, got something else of its name; remove it"
    except MediaError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{file} must be readable, got {error.strerror}; change its permissions"
    return AnnotationFile(path=path, num_bytes=None, problem=problem)


def show_reports(reports: list[SplitReport]) -> None:
    """Print a table of what was found, the problems, and the names of what is absent."""
    console = Console()
    # As narrow as can be: whole in a terminal of 80 columns.
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("data set", no_wrap=True)
    for column in ("samples", "corrupt", "left out", "published", "paper"):
        table.add_column(column, justify="right", no_wrap=True)
    lines, absent = [], []
    for report in reports:
        name = f"{report.dataset} {report.split}"
        if report.state == "absent":
            absent.append(name)
            continue
        coverage = report.coverage or Coverage(dataset=report.dataset, split=report.split)
        samples = "damaged" if report.state == "damaged" else f"{coverage}"
        numbers = (report.corrupt, coverage.left_out, report.published, report.paper)
        table.add_row(name, samples, *("" if n is None else f"{n:,}" for n in numbers))
        if samples == "damaged":
            lines.append(f"{name}: damaged: {coverage} read before it was seen")
        lines += [f"{name}: {problem}" for problem in report.problems]
        lines += [f"{file.sha256}  {file.path}" for file in report.files if file.sha256]
    if absent:
        lines.append(f"absent: {', '.join(absent)}")
    console.print(table)
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
