"""The report of a grid: Markdown, CSV, LaTeX and pictures.

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

from pathweave.compare.analysis import Analysis, load_analysis
from pathweave.compare.plots import pictures
from pathweave.compare.quantities import WHOLE
from pathweave.compare.summary import details, mean, tables
from pathweave.compare.tables import Table, latex, markdown, wrap
from pathweave.errors import RunError
from pathweave.evaluate.results import Results
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
    means: list[Table]


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
    files = {
        results / f"{name}.csv": _estimates_csv(analysis),
        results / f"{name}_scores.csv": _scores_csv(analysis),
        results / f"{name}.tex": latex([t for _, found in main + more for t in found]),
        results / f"{name}_details.md": "\n\n".join(_details(analysis, more)) + "\n",
    }
    links = [f"![{about}]({RESULTS}/{picture})" for picture, (about, _) in drawn.items()]
    beside = (
        f"By modality, mixed as in the paper, and as score matrices: [{name}_details.md]"
        f"({RESULTS}/{name}_details.md). All numbers: [{name}.csv]({RESULTS}/{name}.csv), "
        f"[{name}_scores.csv]({RESULTS}/{name}_scores.csv). LaTeX: [{name}.tex]"
        f"({RESULTS}/{name}.tex)."
    )
    parts = [_heading(analysis), *_sections(main, 3), beside, "### Pictures", *links]
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


def _sections(sections: list[tuple[str, list[Table]]], level: int) -> Iterator[str]:
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
    seeds = _named_seeds([seed for seed in about.seeds if seed in done])
    order = ", ".join(about.orders[analysis.main])
    lines = [
        f"{about.name}: {len(cells)} of {about.num_cells} cells, {seeds}, "
        f"{hours:.1f} hours of computing besides the first stage, which is trained once for all "
        f"methods. Order, where none is named: {order}. {_machine(analysis)}",
        "Every run has answered the test samples once after each stage.",
    ]
    missing = [m for m in about.methods if (m, analysis.main) not in analysis.groups]
    missing += [f"seed {seed}" for seed in about.seeds if seed not in done]
    if missing:
        lines.append(f"Without a result yet: {', '.join(missing)}.")
    lines.extend(_uneven_seeds(analysis))
    lines.extend(_other_bases(analysis))
    return "\n\n".join(map(wrap, lines))


def _named_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def _uneven_seeds(analysis: Analysis) -> Iterator[str]:
    """Yield a warning if means of methods are over different seeds."""
    methods: dict[str, list[str]] = {}
    for (method, order), cells in analysis.groups.items():
        if order == analysis.main:
            methods.setdefault(", ".join(str(c.result.seed) for c in cells), []).append(method)
    if len(methods) > 1:
        listed = "; ".join(f"{seeds}: {', '.join(names)}" for seeds, names in methods.items())
        yield (
            f"Means are over the seeds that a method has ({listed}): compare two methods by their "
            "differences, which are over the seeds of both."
        )


def _other_bases(analysis: Analysis) -> Iterator[str]:
    """Yield a warning if methods did not start from the reference's first stage."""
    found = analysis.other_bases()
    if found:
        listed = "; ".join(f"seed {seed}: {', '.join(names)}" for seed, names in found.items())
        yield (
            f"Started from another first stage than {analysis.about.reference} with the same seed, "
            f"as one trained on another machine is ({listed}): these differences are paired by "
            "sample only, and their noise holds that of two first stages."
        )


def _machine(analysis: Analysis) -> str:
    found = {
        f"{e.num_cpus} CPU cores, Python {e.python}, torch {e.torch}, {e.dtype}"
        for cell in analysis.cells
        if (e := cell.result.results.environment) is not None
    }
    return "; ".join(sorted(found)) + "." if found else ""


def _details(analysis: Analysis, sections: list[tuple[str, list[Table]]]) -> Iterator[str]:
    """Yield what stands beside the main tables, as Markdown."""
    yield f"# {analysis.about.name}: details"
    yield f"Main tables, and how all of this was made: [{DOCUMENT}](../{DOCUMENT})."
    yield from _sections(sections, 2)
    yield from _matrices(analysis)


def _matrices(analysis: Analysis) -> Iterator[str]:
    """Yield the score matrices, means over seeds, as Markdown."""
    yield "## Score matrices"
    yield "Means over seeds, after each stage; `whole`: all test samples."
    for (method, order), cells in analysis.groups.items():
        all_results = [cell.result.results for cell in cells]
        first = all_results[0]
        rows = []
        for modality, info in first.columns:
            scores = [_score(all_results, s, modality, info.name) for s in _stages(first)]
            wholes = [
                other.whole
                for results in all_results
                for owner, other in results.columns
                if (owner, other.name) == (modality, info.name) and other.whole is not None
            ]
            whole = f"{mean(wholes):.1f}" if len(wholes) == len(cells) else ""
            rows.append([f"{modality} {info.name}", *scores, whole])
        title = f"{method}, {order}, {_named_seeds([cell.result.seed for cell in cells])}"
        yield markdown(Table(title, ["test set", *first.curriculum, "whole"], rows))


def _stages(results: Results) -> range:
    return range(len(results.curriculum))


def _score(all_results: list[Results], stage: int, modality: str, dataset: str) -> str:
    matrices = [results.matrix for results in all_results]
    if not all(matrix.has(stage, modality, dataset) for matrix in matrices):
        return ""
    return f"{mean(matrix.score(stage, modality, dataset) for matrix in matrices):.1f}"


def _estimates_csv(analysis: Analysis) -> str:
    header = [
        *("method", "order", "quantity", "modality", "kind", "value", "num_seeds", "seeds_half"),
        *("samples_low", "samples_high", "num_objects", "minus_reference", "both_half", "verdict"),
    ]
    rows = []
    for group, found in analysis.estimates.items():
        for key, value in found.items():
            row: list[object] = [*group, key.quantity, key.modality, key.kind, _exact(value.value)]
            row += [len(value.per_seed), _exact(value.seeds), _exact(value.low)]
            row += [_exact(value.high), value.num_objects]
            other = analysis.differences.get(group, {}).get(key)
            if other is not None:
                row += [_exact(other.estimate.value), _exact(other.both), other.verdict]
            rows.append(row)
    return _csv(header, rows)


def _scores_csv(analysis: Analysis) -> str:
    header = ["method", "order", "seed", "after", "modality", "dataset", "metric", "score"]
    rows: list[list[object]] = []
    for cell in analysis.cells:
        result = cell.result
        place = [result.method, result.order, result.seed]
        matrix = result.results.matrix
        for stage, after in enumerate(result.results.curriculum):
            for modality, info in result.results.columns:
                if matrix.has(stage, modality, info.name):
                    score = _exact(matrix.score(stage, modality, info.name))
                    rows.append([*place, after, modality, info.name, info.metric, score])
        for modality, info in result.results.columns:
            if info.whole is not None:
                score = _exact(info.whole)
                rows.append([*place, WHOLE, modality, info.name, info.metric, score])
    return _csv(header, rows)


def _csv(header: list[str], rows: list[list[object]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([*row, *[""] * (len(header) - len(row))] for row in rows)
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


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
