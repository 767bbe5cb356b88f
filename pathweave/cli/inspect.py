"""``pathweave inspect``: what is in the directory of a run."""

import json
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    gates: Annotated[
        bool, typer.Option(help="Measure which experts each path uses (loads the model).")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show paths, predecessors, sizes, trained parameters, gate usage, scores and licences.

    Example: pathweave inspect runs/mcl_mini
    """
    from pathweave.evaluate.inspect import inspect_run, show_inspection

    inspection = inspect_run(run, gates)
    if as_json:
        typer.echo(json.dumps(inspection))
    else:
        show_inspection(inspection)
