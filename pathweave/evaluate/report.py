"""Tables of results for the terminal."""

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pathweave.display import WholeTable
from pathweave.evaluate.results import Results
from pathweave.metrics import unit_of

REFERENCES = {
    "whole\nset": "whole",
    "linear\nprobe": "probe",
    "majority": "majority",
    "text\nonly": "text_only",
}


def tables(results: Results) -> list[Table]:
    """Return the tables of a run: scores, transfer and forgetting, trained parameters."""
    made = [score_table(results), transfer_table(results)]
    if any(stage.medium_use for stage in results.stages):
        made.append(medium_table(results))
    return [*made, parameter_table(results)] if results.stages else made


def score_table(results: Results) -> Table:
    """Return the score matrix, a row a test set, and beside it what the scores are read against."""
    numbered = ", ".join(f"{number} {name}" for number, name in enumerate(results.curriculum))
    stages = range(len(results.curriculum))
    units = dict.fromkeys(f"{d.name} in {unit_of(d.metric)}" for _, d in results.columns)
    parts = [f"{m} {d.name} {d.coverage}" for m, d in results.columns if d.coverage is not None]
    covered = f"; samples there are: {', '.join(parts)}" if parts else ""
    table = _table(
        ["test set", *map(str, stages)],
        title=f"{results.recipe}: scores after each stage",
        caption=f"stages: {numbered}; {', '.join(units)}{covered}",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    known = [
        (label, field)
        for label, field in REFERENCES.items()
        if any(getattr(dataset, field) is not None for _, dataset in results.columns)
    ]
    for label, _ in known:
        table.add_column(label, justify="right", style="dim")
    found = {(stage, m, d.name): f"{score:.1f}" for stage, m, d, score in results.scored()}
    for modality, dataset in results.columns:
        scores = [found.get((stage, modality, dataset.name), "") for stage in stages]
        beside = [getattr(dataset, field) for _, field in known]
        shown = ["" if value is None else f"{value:.1f}" for value in beside]
        table.add_row(f"{modality} {dataset.name}", *scores, *shown)
    return table


def transfer_table(results: Results) -> Table:
    """Return transfer T and forgetting F of each stage, in points."""
    lost = [f"F of\n{modality}" for modality in results.curriculum[:-1]]
    title = "Transfer T (higher is better) and forgetting F (0: nothing lost), points"
    table = _table(["after learning", "T", "F", *lost], title=title)
    matrix = results.matrix
    for stage in results.finished_stages:
        old = [
            points(matrix.forgetting(stage, modality)) if matrix.can_lose(stage, modality) else ""
            for modality in results.curriculum[:stage]
        ]
        mean = points(matrix.forgetting_mean(stage)) if old and all(old) else ""
        row = [f"{matrix.transfer(stage):.1f}", mean, *old]
        blank = [""] * (len(results.curriculum) + 1 - len(row))
        table.add_row(results.curriculum[stage], *row, *blank)
    return table


def medium_table(results: Results) -> Table:
    """Return what blanking or exchanging the medium does to the loss of each stage."""
    table = _table(
        ["stage", "own", "none", "another's"],
        title="Is the medium used? Loss with the medium of",
        caption="training samples after their stage, nats per token of the answer",
    )
    for stage in results.stages:
        if stage.medium_use is not None:
            values = [f"{stage.medium_use[field]:.2f}" for field in ("loss", "blank", "swapped")]
            table.add_row(stage.modality, *values)
    return table


def parameter_table(results: Results) -> Table:
    """Return what each stage trained, against full tuning of the connector."""
    parts = ("stage", "adapters", "in-\nadapters", "gates", "other")
    table = _table(
        [*parts, "total", "share", "time", "disk"],
        title="Trained parameters",
        caption="share: of what full tuning of the connector would train at that stage",
        box=SIMPLE_HEAD,
        padding=0,
    )
    for stage in results.stages:
        counts = (stage.adapters, stage.in_adapters, stage.gates, stage.other, stage.trained)
        seconds = "" if stage.seconds is None else f"{stage.seconds:,.0f}s"
        disk = "" if stage.num_bytes is None else f"{stage.num_bytes / 1e6:.1f}MB"
        shown = [f"{count:,}" for count in counts]
        table.add_row(stage.modality, *shown, f"{stage.share:.1f}%", seconds, disk)
    return table


def _table(headings: Iterable[str], **options: Any) -> Table:  # noqa: ANN401 (those of rich)
    """Return an empty table, whose columns after the first hold numbers."""
    table = WholeTable(*headings, **options)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def points(value: float, sign: str = "") -> str:
    """Return a difference of scores with one digit, never ``-0.0``; ``sign`` may be ``+``."""
    return f"{round(value, 1) + 0.0:{sign}.1f}"
