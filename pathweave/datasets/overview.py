"""The declared data sets at a glance."""

from typing import Any

from rich.console import Console
from rich.table import Table

from pathweave.datasets.declaration import datasets

_SHOWN = {"name", "title", "task", "domain", "prompt", "evaluation", "terms", "origin", "sources",
          "note"}  # fmt: skip


def overview() -> list[dict[str, Any]]:
    """Return what is declared of every data set, as plain values for JSON."""
    return [
        {
            **dataset.model_dump(mode="json", include=_SHOWN, exclude_none=True),
            "modalities": list(dataset.modalities),
            "splits": {
                name: {
                    "learn": split.learn,
                    "files": list(split.annotations),
                    "published": split.samples,
                    "paper": split.paper,
                }
                for name, split in dataset.splits.items()
            },
        }
        for dataset in datasets().values()
    ]


def show_overview() -> None:
    """Print a line a data set, then under which terms each may be used."""
    table, terms = (Table(box=None, header_style="bold", padding=(0, 1, 0, 0)) for _ in range(2))
    for column in ("name", "media", "task", "domain", "splits", "metric"):
        table.add_column(column, no_wrap=column in ("name", "task"))
    terms.add_column("name", no_wrap=True)
    terms.add_column("terms of use")
    for name, dataset in datasets().items():
        splits = " ".join(part + "*" * split.learn for part, split in dataset.splits.items())
        metrics = " ".join(how.metric for how in dataset.evaluation.values())
        media = " ".join(dataset.modalities)
        table.add_row(name, media, dataset.task, dataset.domain, splits, metrics)
        terms.add_row(name, dataset.terms)
    Console().print(table, "* splits to learn from", terms, sep="\n\n")
