"""The declared data sets at a glance."""

from typing import Any

from rich.console import Console
from rich.table import Table

from pathweave.datasets.declaration import datasets


def overview() -> list[dict[str, Any]]:
    """Return what is declared of every data set, as plain values for JSON."""
    return [
        {
            "name": dataset.name,
            "title": dataset.title,
            "modalities": list(dataset.modalities),
            "task": dataset.task,
            "domain": dataset.domain,
            "prompt": dataset.prompt,
            "evaluation": {
                name: how.model_dump(exclude_none=True) for name, how in dataset.evaluation.items()
            },
            "splits": {
                name: {
                    "learn": split.learn,
                    "files": [*split.records, *split.files.values()],
                    "published": split.samples,
                    "paper": split.paper,
                }
                for name, split in dataset.splits.items()
            },
            "terms": dataset.terms,
            "origin": dataset.origin,
            "sources": list(dataset.sources),
            "note": dataset.note,
        }
        for dataset in datasets().values()
    ]


def show_overview() -> None:
    """Print a line a data set, then under which terms each may be used."""
    rows = overview()
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for column in ("name", "media", "task", "domain", "splits", "metric"):
        table.add_column(column, no_wrap=column in ("name", "task"))
    for row in rows:
        splits = " ".join(name + "*" * split["learn"] for name, split in row["splits"].items())
        metrics = " ".join(how["metric"] for how in row["evaluation"].values())
        media = " ".join(row["modalities"])
        table.add_row(row["name"], media, row["task"], row["domain"], splits, metrics)
    terms = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    terms.add_column("name", no_wrap=True)
    terms.add_column("terms of use")
    for row in rows:
        terms.add_row(row["name"], row["terms"])
    console = Console()
    console.print(table, "* splits to learn from", terms, sep="\n\n")
