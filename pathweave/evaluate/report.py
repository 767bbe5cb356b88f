"""Tables of results for the terminal."""

from rich.table import Table

from pathweave.evaluate.results import DatasetInfo, Results

UNITS = {"exact_match": "%", "ranking": "%", "cider_d": "CIDEr-D x100"}
REFERENCES = {
    "whole\nset": "whole",
    "linear\nprobe": "probe",
    "major-\nity": "majority",
    "text\nonly": "text_only",
}


def tables(results: Results) -> list[Table]:
    """Return the tables of a run: scores, transfer and forgetting, trained parameters."""
    made = [score_table(results), transfer_table(results)]
    return [*made, parameter_table(results)] if results.stages else made


def score_table(results: Results) -> Table:
    """Return the score matrix, a row a test set, and beside it what the scores are read against."""
    table = Table(title=f"{results.recipe}: scores after each stage")
    for heading in ("test set", "unit"):
        table.add_column(heading)
    for number, learnt in enumerate(results.curriculum):
        table.add_column(f"{number}\n{learnt}", justify="right")
    known = [
        (label, field)
        for label, field in REFERENCES.items()
        if any(getattr(dataset, field) is not None for _, dataset in results.columns)
    ]
    for label, _ in known:
        table.add_column(label, justify="right", style="dim")
    matrix = results.matrix
    for modality, dataset in results.columns:
        scores = [
            f"{matrix.score(stage, modality, dataset.name):.1f}"
            if matrix.has(stage, modality, dataset.name)
            else ""
            for stage in range(len(results.curriculum))
        ]
        beside = [getattr(dataset, field) for _, field in known]
        shown = ["" if value is None else f"{value:.1f}" for value in beside]
        table.add_row(f"{modality} {dataset.name}", unit(dataset), *scores, *shown)
    return table


def transfer_table(results: Results) -> Table:
    """Return transfer T and forgetting F of each stage, in points."""
    table = Table(title="Transfer T (higher is better) and forgetting F (0: nothing lost), points")
    table.add_column("after learning")
    for heading in ("T", "F", *(f"F of\n{modality}" for modality in results.curriculum[:-1])):
        table.add_column(heading, justify="right")
    matrix = results.matrix
    for stage in results.finished_stages:
        old = [matrix.forgetting(stage, modality) for modality in results.curriculum[:stage]]
        mean = points(matrix.forgetting_mean(stage)) if old else ""
        blank = [""] * (len(results.curriculum) - 1 - len(old))
        table.add_row(
            results.curriculum[stage],
            f"{matrix.transfer(stage):.1f}",
            mean,
            *(points(value) for value in old),
            *blank,
        )
    return table


def parameter_table(results: Results) -> Table:
    """Return what each stage trained, against full tuning of the connector."""
    table = Table(title="Trained parameters")
    table.add_column("stage")
    headings = ("adapters", "in-\nadapters", "gates", "other", "total", "full\ntuning", "share")
    for heading in (*headings, "time", "on disk"):
        table.add_column(heading, justify="right")
    for stage in results.stages:
        counts = (stage.adapters, stage.in_adapters, stage.gates, stage.other)
        table.add_row(
            stage.modality,
            *(f"{count:,}" for count in (*counts, stage.trained, stage.full_tuning)),
            f"{stage.share:.2f} %",
            "" if stage.seconds is None else f"{stage.seconds:,.0f} s",
            "" if stage.num_bytes is None else f"{stage.num_bytes / 1e6:.2f} MB",
        )
    return table


def unit(dataset: DatasetInfo) -> str:
    """Return the unit of a test set's scores."""
    return UNITS.get(dataset.metric, dataset.metric)


def points(value: float) -> str:
    """Return a difference of scores with one digit, never ``-0.0``."""
    return f"{round(value, 1) + 0.0:.1f}"
