"""Report of a grid: Markdown, CSV, LaTeX and pictures.

The main tables go between two marks of ``mcl.md``, so that the text around them can be written by
hand and hold several grids; the rest goes into a file of details. Marks and files are named after
the grid.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pathweave.compare.analysis import Analysis, load_analysis
from pathweave.compare.cell import Scored
from pathweave.compare.plots import pictures
from pathweave.compare.quantities import Quantity
from pathweave.compare.summary import details, tables
from pathweave.compare.tables import ReportTable, latex, markdown, wrap
from pathweave.errors import RunError
from pathweave.storage.atomic import write_atomic

DOCUMENT, RESULTS = "mcl.md", "results"


@dataclass(frozen=True)
class Report:
    """What was written.

    Attributes:
        files: The files.
        means: The first tables of it: T, F and final scores of every method.
    """

    files: list[Path]
    means: list[ReportTable]


def write_report(directory: Path, out: Path) -> Report:
    """Report a grid.

    Args:
        directory: Directory of the grid.
        out: Where to write ``mcl.md`` and ``results/``.

    Raises:
        RunError: If a result is missing or damaged, or ``mcl.md`` has one mark of the grid only.
        PathWeaveError: If matplotlib is not installed.
        DiskError: If a file cannot be written.
    """
    analysis = load_analysis(directory)
    document, results = out / DOCUMENT, out / RESULTS
    name = file_name(analysis.about.name)
    before, after = _around(document, analysis.about.name)
    drawn = {f"{name}_{what}.png": made for what, made in pictures(analysis).items()}
    main, more = tables(analysis), details(analysis)
    above = f"Main tables, and how all of this was made: [{DOCUMENT}](../{DOCUMENT})."
    beside = [f"# {analysis.about.name}: details", above, *_sections(more, 2), *_matrices(analysis)]
    files = {
        results / f"{name}.csv": _estimates_csv(analysis),
        results / f"{name}_scores.csv": _scores_csv(analysis),
        results / f"{name}.tex": latex([t for _, found in main + more for t in found]),
        results / f"{name}_details.md": "\n\n".join(beside) + "\n",
    }
    links = [f"![{about}]({RESULTS}/{picture})" for picture, (about, _) in drawn.items()]
    where = (
        f"Tables by modality, mixed as in the paper, and score matrices: [{name}_details.md]"
        f"({RESULTS}/{name}_details.md). All numbers: [{name}.csv]({RESULTS}/{name}.csv), "
        f"[{name}_scores.csv]({RESULTS}/{name}_scores.csv). LaTeX: [{name}.tex]"
        f"({RESULTS}/{name}.tex)."
    )
    parts = [_heading(analysis), *_sections(main, 3), where, "### Pictures", *links]
    begin, end = marks(analysis.about.name)
    files[document] = "".join([before, begin, "\n", "\n\n".join(parts), "\n", end, after])
    for picture, (_, png) in drawn.items():
        write_atomic(results / picture, png)
    for file, text in files.items():
        write_atomic(file, text.encode())
    written = [*files, *(results / picture for picture in drawn)]
    return Report(written, [table for _, found in main[:1] for table in found])


def file_name(grid: str) -> str:
    """Return the name of a grid as files bear it.

    Example:
        >>> file_name("MCL-mini grid")
        'mcl_mini_grid'
    """
    return re.sub(r"[^a-z0-9]+", "_", grid.lower()).strip("_")


def marks(grid: str) -> tuple[str, str]:
    """Return the lines between which the tables of a grid stand."""
    return f"<!-- {file_name(grid)}: begin -->", f"<!-- {file_name(grid)}: end -->"


def _sections(sections: list[tuple[str, list[ReportTable]]], level: int) -> Iterator[str]:
    said = {""}
    for heading, found in sections:
        yield f"{'#' * level} {heading}"
        for table in found:
            yield markdown(table)
        # Tables of one section are read in the same way, and some sections too.
        if (note := found[0].note) not in said:
            yield wrap(note)
            said.add(note)


def _heading(analysis: Analysis) -> str:
    about, cells = analysis.about, analysis.cells
    hours = sum(cell.result.seconds for cell in cells) / 3600
    done = {cell.result.seed for cell in cells}
    order = ", ".join(about.orders[analysis.main])
    machines = {
        f"{e.num_cpus} CPU cores, Python {e.python}, torch {e.torch}, {e.dtype}"
        for cell in cells
        if (e := cell.result.results.environment) is not None
    }
    lines = [
        f"{about.name}: {len(cells)} of {about.num_cells} cells, "
        f"{_named_seeds([seed for seed in about.seeds if seed in done])}, "
        f"{hours:.1f} hours of computing without the first stage, which is trained once for all "
        f"methods. Order unless stated otherwise: {order}. "
        + ("; ".join(sorted(machines)) + "." if machines else ""),
        "Every run answered the test samples once after each stage.",
    ]
    missing = [m for m in about.methods if (m, analysis.main) not in analysis.groups]
    missing += [f"seed {seed}" for seed in about.seeds if seed not in done]
    if missing:
        lines.append(f"Without a result yet: {', '.join(missing)}.")
    return "\n\n".join(map(wrap, [*lines, *_warnings(analysis)]))


def _named_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _warnings(analysis: Analysis) -> Iterator[str]:
    """Yield what is to be known if methods differ in their seeds or their first stage."""
    methods: dict[str, list[str]] = {}
    for group in analysis.main_groups:
        seeds = ", ".join(str(cell.result.seed) for cell in analysis.groups[group])
        methods.setdefault(seeds, []).append(group[0])
    if len(methods) > 1:
        listed = "; ".join(f"{seeds}: {', '.join(names)}" for seeds, names in methods.items())
        yield (
            f"Means are over the seeds that a method has ({listed}). To compare two methods, use "
            "their differences, which are over the seeds that both have."
        )
    if others := analysis.other_bases():
        listed = "; ".join(f"seed {seed}: {', '.join(names)}" for seed, names in others.items())
        yield (
            f"Started from another first stage than {analysis.about.reference} with the same seed, "
            f"as one trained on another machine is ({listed}). Their differences are paired by "
            "test sample only and include the variation between two first stages."
        )


def _matrices(analysis: Analysis) -> Iterator[str]:
    """Yield the score matrices, means over seeds, as Markdown."""
    yield "## Score matrices"
    yield "Means over seeds, after each stage; `whole`: all test samples."
    for (method, order), cells in analysis.groups.items():
        curriculum, scores = analysis.about.orders[order], analysis.scores((method, order))
        rows = []
        for test_set in dict.fromkeys(scored[1:] for scored in scores):
            found = [scores.get(Scored(after, *test_set), []) for after in (*curriculum, None)]
            # A mean over fewer seeds than others have would not be comparable.
            means = [f"{np.mean(own):.1f}" if len(own) == len(cells) else "" for own in found]
            rows.append([" ".join(test_set), *means])
        title = f"{method}, {order}, {_named_seeds([cell.result.seed for cell in cells])}"
        yield markdown(ReportTable(title, ["test set", *curriculum, Quantity.WHOLE], rows))


def _estimates_csv(analysis: Analysis) -> str:
    header = (
        "method order quantity modality kind value num_seeds seeds_half samples_low samples_high "
        "num_objects minus_reference both_half verdict"
    )
    rows = []
    for group, found in analysis.estimates.items():
        differences = analysis.differences.get(group, {})
        for key, own in found.items():
            row = [*group, *key, own.value, len(own.per_seed), own.seeds, own.low, own.high]
            other = differences.get(key)
            apart = [other.value, other.both, other.verdict] if other else [""] * 3
            rows.append([*row, own.num_objects, *apart])
    return _csv(header, rows)


def _scores_csv(analysis: Analysis) -> str:
    rows = [
        [r.method, r.order, r.seed, scored.after or Quantity.WHOLE, *scored[1:], metric, score]
        for r in (cell.result for cell in analysis.cells)
        for scored, metric, score in r.scores()
    ]
    return _csv("method order seed after modality dataset metric score", rows)


def _csv(header: str, rows: list[list[Any]]) -> str:
    """Return rows as CSV, numbers that need not be whole with six digits."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header.split())
    for row in rows:
        writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row])
    return stream.getvalue()


def _around(document: Path, name: str) -> tuple[str, str]:
    """Return what stands before and after the tables of the document; new ones go to its end."""
    if not document.exists():
        return f"# {name}\n\n", "\n"
    try:
        text = document.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(
            f"{document} must be a text file in UTF-8, got {error}; move it, or choose another "
            "--out"
        ) from error
    begin, end = marks(name)
    before, has_begin, rest = text.partition(begin)
    _, has_end, after = rest.partition(end)
    if not has_begin and end not in text:
        return f"{text.rstrip()}\n\n# {name}\n\n", "\n"
    if not has_begin or not has_end:
        raise RunError(
            f"{document} must have a line {begin} and after it a line {end}, got one without the "
            "other; add it where the tables begin or end, or choose another --out"
        )
    return before, after
