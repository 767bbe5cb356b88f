"""``pathweave modality``: a new sense from files."""

import json
from pathlib import Path
from typing import Annotated

import typer

modality_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Make manifests and a recipe from your files (docs/own_data.md).\n\n"
    "Example: pathweave modality new motion --from recordings",
)


@modality_app.command()
def new(  # noqa: PLR0913 (all are options of one command)
    name: Annotated[str, typer.Argument(help="Name of the modality, such as motion.")],
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            metavar="FILE|DIR",
            help="A directory whose folders are the classes; one with a table beside the media; or "
            "one table with a row per sample in time.",
        ),
    ],
    label: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the labels, in a table.")
    ] = None,
    question: Annotated[
        str, typer.Option(metavar="TEXT", help="What is asked about every medium.")
    ] = "What is it?",
    group: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of what stays in one split, as the person."),
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Column of the recording that a row belongs to."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="HZ", help="Samples per second, without times.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write; by default NAME.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look at labelled files, split them without leaks, and write manifests and a recipe.

    Examples: pathweave modality new motion --from recordings

    pathweave modality new motion --from log.csv --recording trip --label road --group driver
    """
    from pathweave.data.new_modality import new_modality, show_modality
    from pathweave.data.utf8 import printable
    from pathweave.display import Display

    made = new_modality(
        name, source, Display(quiet=as_json), label, question, group, recording, rate, out, seed
    )
    typer.echo(printable(json.dumps(made, ensure_ascii=False) if as_json else show_modality(made)))
