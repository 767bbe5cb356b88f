"""Option ``--track`` of commands that train."""

from typing import Annotated

import typer

Track = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="TRACKER",
        help="Give the numbers to trackio, wandb or tensorboard too; may be repeated.",
    ),
]
