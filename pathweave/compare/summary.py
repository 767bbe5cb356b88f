"""The tables of a report."""

from collections.abc import Iterable

from pathweave.compare.analysis import Analysis, Group
from pathweave.compare.cell import CellResult
from pathweave.compare.quantities import (
    ACCURACY,
    CAPTIONS,
    FINAL,
    FORGETTING,
    KINDS,
    MEAN,
    MIXED,
    TRANSFER,
    WHOLE,
    Key,
)
from pathweave.compare.tables import Table
from pathweave.compare.uncertainty import Estimate

UNITS = {
    ACCURACY: "accuracy in %",
    CAPTIONS: "captions, CIDEr-D x100 or as the metric says",
    MIXED: "accuracy and captions mixed, as in the paper",
}
HOW_TO_READ = (
    "A cell is the mean over seeds ± the half-width of its 95 % interval over seeds (Student's t) "
    "/ over test samples (bootstrap of the objects shown). ?: not known, as with one seed. 0: "
    "exactly 0 in every seed. T (higher is better): mean over the modalities learnt after the "
    "first, which is the base of all. F (lower is better): mean over the stages after the first. "
    "final: mean over all modalities after the last stage; whole sets: the same on all test "
    "samples."
)
OF_DIFFERENCES = (
    "Means as above, minus those of the reference with the same seed on the same samples. noise: "
    "half-width of the 95 % interval of seeds and samples together. told apart: whether the "
    "difference is larger; equal: none in any seed; 1 seed: larger than the noise of the samples, "
    "that of the training is not known. There is no correction for the number of comparisons."
)


Section = tuple[str, list[Table]]
_APART = (ACCURACY, CAPTIONS)  # the kinds that are not a mixture of others


def tables(analysis: Analysis) -> list[Section]:
    """Return the main tables of a report in sections: a heading, and tables."""
    return _filled(
        ("Means", [_means(analysis, kind) for kind in _APART]),
        ("Differences", [_differences(analysis, kind) for kind in _APART]),
        ("Orders", [_orders(analysis, kind) for kind in _APART]),
        ("Gates", [_gates(analysis)]),
        ("Cost", [_costs(analysis)]),
    )


def details(analysis: Analysis) -> list[Section]:
    """Return the other tables: mixed scores, and T and F by modality."""
    return _filled(
        ("Means, mixed", [_means(analysis, MIXED)]),
        ("Differences, mixed", [_differences(analysis, MIXED)]),
        ("Orders, mixed", [_orders(analysis, MIXED)]),
        ("Transfer T, right after learning each modality", _each(analysis, TRANSFER)),
        ("Forgetting F of all earlier modalities after each", _each(analysis, FORGETTING)),
    )


def _filled(*made: Section) -> list[Section]:
    """Return sections without the tables that have no rows."""
    with_rows = [(heading, [t for t in found if t.rows]) for heading, found in made]
    return [(heading, found) for heading, found in with_rows if found]


def _means(analysis: Analysis, kind: str) -> Table:
    quantities = (TRANSFER, FORGETTING, FINAL, WHOLE)
    keys = [Key(quantity, MEAN, kind) for quantity in quantities]
    groups = _main_groups(analysis)
    used = [key for key in keys if any(key in analysis.estimates[group] for group in groups)]
    names = {WHOLE: "whole sets"}
    return Table(
        f"Means over modalities: {UNITS[kind]}",
        ["method", "seeds", *(names.get(key.quantity, key.quantity) for key in used)],
        [
            [
                group[0],
                str(len(analysis.groups[group])),
                *(_cell(analysis.estimates[group].get(key)) for key in used),
            ]
            for group in groups
            if used
        ],
        HOW_TO_READ,
    )


def _each(analysis: Analysis, quantity: str) -> list[Table]:
    return [_by_modality(analysis, quantity, kind) for kind in KINDS]


def _by_modality(analysis: Analysis, quantity: str, kind: str) -> Table:
    groups = _main_groups(analysis)
    keys = [Key(quantity, name, kind) for name in analysis.about.orders[analysis.main]]
    used = [key for key in keys if any(key in analysis.estimates[group] for group in groups)]
    rows = [
        [group[0], *(_cell(analysis.estimates[group].get(key)) for key in used)]
        for group in groups
        if used
    ]
    title = f"{quantity} of each modality: {UNITS[kind]}"
    if quantity == FORGETTING:
        title = f"F after each modality: {UNITS[kind]}"
    return Table(title, ["method", *(key.modality for key in used)], rows, HOW_TO_READ)


def _orders(analysis: Analysis, kind: str) -> Table:
    keys = [Key(TRANSFER, name, kind) for name in analysis.modalities]
    used = [key for key in keys if any(key in found for found in analysis.estimates.values())]
    # A method with one order has nothing to compare here.
    several = {m for m, order in analysis.groups if order != analysis.main}
    rows = []
    for method, order in sorted(
        analysis.groups, key=lambda group: analysis.about.methods.index(group[0])
    ):
        if method in several and used:
            found = analysis.estimates[method, order]
            shown = [_short(found.get(key)) for key in used]
            means = [_short(found.get(Key(q, MEAN, kind))) for q in (TRANSFER, FORGETTING)]
            rows.append([f"{method}, {order}", *shown, *means])
    listed = "; ".join(f"{n}: {', '.join(o)}" for n, o in analysis.about.orders.items())
    return Table(
        f"Orders, T of each modality: {UNITS[kind]}",
        ["method, order", *(key.modality for key in used), "mean T", "mean F"],
        rows,
        f"± over seeds. {listed}.",
    )


def _differences(analysis: Analysis, kind: str) -> Table:
    rows = []
    for group in _main_groups(analysis):
        found = analysis.differences.get(group)
        pair = [Key(quantity, MEAN, kind) for quantity in (TRANSFER, FORGETTING)]
        if not found or not any(key in found for key in pair):
            continue
        row = [group[0]]
        for key in pair:
            if key in found:
                noise = "?" if found[key].both is None else f"±{_half(found[key].both)}"
                value = found[key].estimate.value
                row += [f"{round(value, 1) + 0.0:+.1f}", noise, found[key].verdict]
            else:
                row += ["", "", ""]
        seeds = max(len(found[key].estimate.per_seed) for key in pair if key in found)
        rows.append([*row, str(seeds)])
    return Table(
        f"Difference to {analysis.about.reference}: {UNITS[kind]}",
        ["method", "T", "noise", "told apart", "F", "noise", "told apart", "seeds"],
        rows,
        OF_DIFFERENCES,
    )


def _gates(analysis: Analysis) -> Table:
    """Return the mean weight of each expert in each path with gates."""
    rows = []
    owners = analysis.about.orders[analysis.main]
    for group in _main_groups(analysis):
        usages = [cell.result.gate_usage for cell in analysis.groups[group]]
        for path in owners:
            used = [usage[path] for usage in usages if path in usage]
            if used:
                weights = {o: sum(u.get(o, 0.0) for u in used) / len(used) for o in owners}
                shown = [f"{weights[o]:.2f}" if weights[o] else "" for o in owners]
                rows.append([f"{group[0]}, {path}", *shown])
    return Table(
        "Mean gate weight of a path's own adapter and of earlier ones",
        ["method, path", *owners],
        rows,
        "Mean over sites and tokens on the inputs kept with each path, and over seeds; it says how "
        "much an adapter counts, not how much it adds. New gates weigh all alike. A first path has "
        "no predecessors and no gates.",
    )


def _costs(analysis: Analysis) -> Table:
    rows = []
    for group in _main_groups(analysis):
        cells = [cell.result for cell in analysis.groups[group]]
        stages = [cell.results.stages[1:] or cell.results.stages for cell in cells]
        largest = max((stage for run in stages for stage in run), key=lambda stage: stage.trained)
        seconds = mean(sum(stage.seconds or 0.0 for stage in run) for run in stages)
        disk = mean(sum(stage.num_bytes or 0 for stage in run) for run in stages)
        rows.append(
            [
                group[0],
                f"{largest.trained:,}",
                f"{largest.share:.1f} %",
                f"{seconds / 60:.1f}",
                f"{mean(cell.seconds for cell in cells) / 60:.1f}",
                f"{max(_peak(cell) for cell in cells) / 1e9:.2f}",
                f"{disk / 1e6:.1f}",
            ]
        )
    return Table(
        "Cost of learning the modalities after the first",
        ["method", "trained a stage", "share", "training min", "all min", "peak GB", "paths MB"],
        rows,
        "trained a stage: trained parameters of the stage with most; share: of what full tuning of "
        "the connector would train there. training: optimiser steps alone; all: with encoding and "
        "scoring. peak: largest resident memory. paths: the paths of all stages on disk; methods "
        "that change the shared connector keep it besides.",
    )


def _peak(cell: CellResult) -> int:
    """Return the largest memory of a cell's own process; its first stage was another's."""
    environment = cell.results.environment
    return (environment and environment.peak_memory_bytes) or cell.peak_memory_bytes


def _main_groups(analysis: Analysis) -> list[Group]:
    return [group for group in analysis.groups if group[1] == analysis.main]


def _cell(value: Estimate | None) -> str:
    if value is None:
        return ""
    if not any(value.per_seed):
        return "0"
    return f"{_number(value)} ±{_half(value.seeds)}/{_half(value.samples)}"


def _short(value: Estimate | None) -> str:
    if value is None:
        return ""
    return f"{_number(value)} ±{_half(value.seeds)}" if any(value.per_seed) else "0"


def _number(value: Estimate) -> str:
    return f"{round(value.value, 1) + 0.0:.1f}"


def _half(width: float | None) -> str:
    if width is None:
        return "?"
    return f"{width:.1f}" if width < 9.95 else f"{width:.0f}"


def mean(values: Iterable[float]) -> float:
    """Return the mean of numbers."""
    listed = list(values)
    return sum(listed) / len(listed)
