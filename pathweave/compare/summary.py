"""Tables of a report."""

from collections.abc import Mapping
from itertools import product

import numpy as np

from pathweave.compare.analysis import Analysis, Group
from pathweave.compare.quantities import APART, MEAN, Key, Kind, Quantity
from pathweave.compare.tables import ReportTable
from pathweave.compare.uncertainty import SeedMean
from pathweave.evaluate.report import points

HOW_TO_READ = (
    "A cell is the mean over seeds ± the half-width of its 95 % confidence interval over seeds "
    "(Student's t) / over test samples (bootstrap over the objects shown). ?: not known, as with "
    "one seed. 0: exactly 0 with every seed. T, transfer (higher is better): mean over the "
    "modalities after the first, which is where all methods start from. F, forgetting (lower is "
    "better): mean over the stages after the first. final: mean over all modalities after the last "
    "stage; whole sets: the same on all test samples."
)
OF_DIFFERENCES = (
    "Means as above, minus those of the reference with the same seeds on the same samples. ±: "
    "half-width of the 95 % confidence interval over seeds and samples together. significant?: yes "
    "if the difference is larger than that; identical: no difference with any seed; 1 seed: larger "
    "than the interval over samples, while the variation between trainings is not known. There is "
    "no correction for multiple comparisons."
)

_NAMES = {
    Kind.ACCURACY: "accuracy in %",
    Kind.CAPTIONS: "captions, CIDEr-D x100 or as the metric says",
    Kind.MIXED: "accuracy and captions mixed, as in the paper",
}

Section = tuple[str, list[ReportTable]]
"""A heading, and tables."""


def tables(analysis: Analysis) -> list[Section]:
    """Return the main tables of a report in sections."""
    return _filled(
        ("Means", [_means(analysis, kind) for kind in APART]),
        ("Differences", [_differences(analysis, kind) for kind in APART]),
        ("Orders", [_orders(analysis, kind) for kind in APART]),
        ("Gates", [_gates(analysis)]),
        ("Cost", [_costs(analysis)]),
    )


def details(analysis: Analysis) -> list[Section]:
    """Return the other tables: mixed scores, and T and F by modality."""
    transfer = _by_modality(analysis, Quantity.T, "T of each modality")
    forgetting = _by_modality(analysis, Quantity.F, "F after each modality")
    return _filled(
        ("Means, mixed", [_means(analysis, Kind.MIXED)]),
        ("Differences, mixed", [_differences(analysis, Kind.MIXED)]),
        ("Orders, mixed", [_orders(analysis, Kind.MIXED)]),
        ("Transfer T, right after learning each modality", transfer),
        ("Forgetting F of all earlier modalities after each", forgetting),
    )


def _filled(*made: Section) -> list[Section]:
    """Return sections without the tables that have no rows."""
    with_rows = [(heading, [t for t in found if t.rows]) for heading, found in made]
    return [(heading, found) for heading, found in with_rows if found]


def _means(analysis: Analysis, kind: Kind) -> ReportTable:
    named = {str(q): q for q in (Quantity.T, Quantity.F, Quantity.FINAL)}
    named["whole sets"] = Quantity.WHOLE
    columns = {name: Key(quantity, MEAN, kind) for name, quantity in named.items()}
    rows = {g: [g[0], str(len(analysis.groups[g]))] for g in analysis.main_groups}
    return _estimates(analysis, "Means over modalities", ["method", "seeds"], rows, columns)


def _by_modality(analysis: Analysis, quantity: Quantity, title: str) -> list[ReportTable]:
    rows = {group: [group[0]] for group in analysis.main_groups}
    names = analysis.about.orders[analysis.main]
    columns = [{name: Key(quantity, name, kind) for name in names} for kind in Kind]
    return [_estimates(analysis, title, ["method"], rows, keys) for keys in columns]


def _orders(analysis: Analysis, kind: Kind) -> ReportTable:
    columns = {name: Key(Quantity.T, name, kind) for name in analysis.modalities}
    means = {f"mean {quantity}": Key(quantity, MEAN, kind) for quantity in (Quantity.T, Quantity.F)}
    # A method with one order has nothing to compare here.
    several = {method for method, order in analysis.groups if order != analysis.main}
    rows = {
        (method, order): [f"{method}, {order}"]
        for method in analysis.about.methods
        for order in analysis.about.orders
        if method in several and (method, order) in analysis.groups
    }
    listed = "; ".join(f"{n}: {', '.join(o)}" for n, o in analysis.about.orders.items())
    title, note = "Orders, T of each modality", f"± over seeds. {listed}."
    return _estimates(analysis, title, ["method, order"], rows, columns | means, note)


def _estimates(
    analysis: Analysis,
    title: str,
    labels: list[str],
    rows: Mapping[Group, list[str]],
    columns: Mapping[str, Key],
    note: str = HOW_TO_READ,
) -> ReportTable:
    """Return the means over seeds of some groups, in the columns that any of them has.

    Args:
        analysis: The grid.
        title: What the table shows.
        labels: Headings of what names a row.
        rows: What names the row of each group.
        columns: The numbers by heading, all of one kind.
        note: How to read it; only under that of all means, cells have the interval over samples.
    """
    found = [(names, analysis.estimates[group]) for group, names in rows.items()]
    used = {n: key for n, key in columns.items() if any(key in known for _, known in found)}
    shown = [
        [*names, *(cell_text(known.get(key), note == HOW_TO_READ) for key in used.values())]
        for names, known in found
        if used
    ]
    kind = _NAMES[next(iter(columns.values())).kind]
    return ReportTable(f"{title}: {kind}", [*labels, *used], shown, note)


def _differences(analysis: Analysis, kind: Kind) -> ReportTable:
    rows = []
    for group in analysis.main_groups:
        known = analysis.differences.get(group, {})
        shown, seeds = [], 0
        for quantity in (Quantity.T, Quantity.F):
            if found := known.get(Key(quantity, MEAN, kind)):
                shown += [points(found.value, "+"), half_text(found.both), found.verdict]
                seeds = max(seeds, len(found.per_seed))
            else:
                shown += [""] * 3
        if seeds:
            rows.append([group[0], *shown, str(seeds)])
    return ReportTable(
        f"Difference to {analysis.about.reference}: {_NAMES[kind]}",
        ["method", "T", "±", "significant?", "F", "±", "significant?", "seeds"],
        rows,
        OF_DIFFERENCES,
    )


def gate_weights(analysis: Analysis) -> dict[tuple[str, str], dict[str, float]]:
    """Return the mean weight of each modality's adapter, by method and path with gates."""
    names = analysis.about.orders[analysis.main]
    found = {}
    for group, path in product(analysis.main_groups, names):
        usages = [cell.result.gate_usage for cell in analysis.groups[group]]
        if used := [usage[path] for usage in usages if path in usage]:
            mean = {o: float(np.mean([u.get(o, 0.0) for u in used])) for o in names}
            found[group[0], path] = mean
    return found


def _gates(analysis: Analysis) -> ReportTable:
    """Return the mean weight of each expert in each path with gates."""
    rows = [
        [f"{method}, {path}", *(f"{weight:.2f}" if weight else "" for weight in weights.values())]
        for (method, path), weights in gate_weights(analysis).items()
    ]
    return ReportTable(
        "Mean gate weight of a path's own adapter and of earlier ones",
        ["method, path", *analysis.about.orders[analysis.main]],
        rows,
        "Mean over sites and tokens on the inputs stored with each path, and over seeds. It says "
        "how much an adapter counts, not how much it adds. New gates weigh all adapters equally. "
        "The first path has no predecessors and no gates.",
    )


def _costs(analysis: Analysis) -> ReportTable:
    rows = []
    for group in analysis.main_groups:
        cells = [cell.result for cell in analysis.groups[group]]
        stages = [cell.results.stages[1:] or cell.results.stages for cell in cells]
        largest = max((stage for run in stages for stage in run), key=lambda stage: stage.trained)
        seconds = np.mean([sum(stage.seconds or 0.0 for stage in run) for run in stages])
        disk = np.mean([sum(stage.num_bytes or 0 for stage in run) for run in stages])
        # Of a cell's own process, where that is known: its first stage may have been another's.
        environments = [(cell.results.environment, cell.peak_memory_bytes) for cell in cells]
        peak = max((e and e.peak_memory_bytes) or of_all for e, of_all in environments)
        all_seconds = np.mean([cell.seconds for cell in cells])
        minutes = [f"{spent / 60:.1f}" for spent in (seconds, all_seconds)]
        trained = [f"{largest.trained:,}", f"{largest.share:.1f} %"]
        rows.append([group[0], *trained, *minutes, f"{peak / 1e9:.2f}", f"{disk / 1e6:.1f}"])
    return ReportTable(
        "Cost of learning the modalities after the first",
        ["method", "trained a stage", "share", "training min", "all min", "peak GB", "paths MB"],
        rows,
        "trained a stage: trained parameters of the stage with most; share: of those that full "
        "fine-tuning of the connector would train there. training: optimiser steps only; all: with "
        "encoding and scoring. peak: largest resident memory. paths: size on disk of the paths of "
        "all stages; methods that change the shared connector store it as well.",
    )


def cell_text(value: SeedMean | None, with_samples: bool = True) -> str:
    """Return a mean with its half-widths over seeds and over samples, in one digit each."""
    if value is None:
        return ""
    if not any(value.per_seed):
        return "0"
    samples = f"/{half_text(value.samples)}" if with_samples else ""
    return f"{points(value.value)} ±{half_text(value.seeds)}{samples}"


def half_text(width: float | None) -> str:
    """Return a half-width; ``?`` is one that is not known."""
    if width is None:
        return "?"
    return f"{width:.1f}" if width < 9.95 else f"{width:.0f}"
