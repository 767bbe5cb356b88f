"""``pathweave diff``: in what two runs or two paths differ."""

import json
from typing import Annotated

import typer


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run, RUN:NAME for a path, or a pack.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show in what two runs or two paths differ: settings, data, tensors, scores.

    Exit code 0: they are equal. 1: they differ.

    Example: pathweave diff runs/mine:audio audio.pathweave
    """
    from pathweave.share import diff as differences
    from pathweave.share import show_differences

    found = differences(a, b)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        show_differences(found, a, b)
    if not found["equal"]:
        raise typer.Exit(1)
