"""``pathweave verify``: proof that nothing was forgotten."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.quick_start import import_models_quickly


def verify(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute again what base and paths computed when they were finished, and compare bit by bit.

    Exit code 0: all hold. 1: one computes something else.

    Example: pathweave verify runs/mcl_mini
    """
    import_models_quickly()
    from pathweave.evaluate.verify import verify_base, verify_run
    from pathweave.runs.loading import load_run, placed_model
    from pathweave.runs.run_directory import RunDirectory

    model, _ = load_run(run)
    directory, model = RunDirectory(run), placed_model(model)
    verdicts = verify_base(model, directory) + verify_run(model, directory, model.paths.names)
    if as_json:
        typer.echo(json.dumps([asdict(v) | {"holds": v.holds} for v in verdicts]))
    else:
        for verdict in verdicts:
            how = (
                "bit-identical" if verdict.identical else f"differs by {verdict.max_difference:.2g}"
            )
            where = "" if verdict.same_machine else " (recorded on another machine)"
            typer.echo(f"{'ok  ' if verdict.holds else 'FAIL'} {verdict.path}: {how}{where}")
    if not all(verdict.holds for verdict in verdicts):
        raise typer.Exit(1)
