"""``pathweave compare``: run a grid of methods, orders and seeds, and report it."""

import json
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

import typer

from pathweave.cli.track import Track
from pathweave.cli.trust import TrustCode
from pathweave.errors import RecipeError


def compare(  # noqa: PLR0913 (all are options of one command)
    grid: Annotated[
        Path | None,
        typer.Argument(metavar="GRID", help="The grid: a YAML file, or one that ships."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the grid; with --report where tables and pictures go, by default "
            "report/ in the grid's directory."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="METHOD", help="Run this method alone; may be repeated."),
    ] = None,
    track: Track = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Cells that run side by side, sharing the processors.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and how far they are; do nothing.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Report the grid in this directory.")
    ] = None,
    submit: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write the finished grid as one checked file into this directory."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Run every cell of a grid that is not done yet, or report what is done.

    Ctrl-C saves and stops; the same command goes on from there. A cell that fails is reported, the
    others go on, and the exit code is 1.

    Examples: pathweave compare mcl_grid --out runs/grid

    pathweave compare --report runs/grid --out docs

    pathweave compare recipes/mcl_grid.yaml --out runs/grid --submit leaderboard
    """
    if report is not None:
        if grid is not None or only or dry_run or jobs > 1 or track or submit is not None:
            raise RecipeError(
                "--report must be given alone or with --out, got a grid or its options; run the "
                "grid first, then report its directory"
            )
        _report(report, out or report / "report", as_json)
        return
    if grid is None or out is None:
        raise RecipeError(
            "compare must be given GRID and --out DIR, or --report DIR, got neither; try pathweave "
            "compare mcl_grid --out runs/grid"
        )
    if submit is not None:
        _submit(grid, out, only or [], submit, as_json)
    elif dry_run:
        _list(grid, out, only or [], as_json)
    else:
        _run(grid, out, only or [], jobs, track or [], as_json)


def _list(grid: Path, out: Path, only: list[str], as_json: bool) -> None:
    from pathweave.compare.grid import load_grid
    from pathweave.compare.run_grid import select, state_of, state_table
    from pathweave.compare.tables import markdown

    states = [state_of(cell, out) for cell in select(load_grid(grid), only)]
    if as_json:
        fields = ("finished", "is_done", "seconds")
        rows = [{"cell": s.cell.name, **{f: getattr(s, f) for f in fields}} for s in states]
        typer.echo(json.dumps(rows))
        return
    typer.echo(f"{markdown(state_table(states), get_terminal_size().columns)}\n")
    typer.echo(f"{sum(s.is_done for s in states)} of {len(states)} cells done")


def _run(
    grid: Path, out: Path, only: list[str], jobs: int, track: list[str], as_json: bool
) -> None:
    from pathweave.cli import EXIT_FAILED, EXIT_INTERRUPTED
    from pathweave.compare.grid import load_grid
    from pathweave.compare.run_grid import run_grid
    from pathweave.train.stop import Interrupted

    try:
        outcome = run_grid(load_grid(grid), out, only, jobs, quiet=as_json, track=track)
    except Interrupted as stop:
        typer.echo(f"{stop}; run the same command again to go on", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from stop
    if as_json:
        typer.echo(json.dumps({"done": outcome.done, "failed": outcome.failed}))
    else:
        failed = f", {len(outcome.failed)} failed" if outcome.failed else ""
        total = len(outcome.done) + len(outcome.failed)
        typer.echo(f"{len(outcome.done)} of {total} cells done{failed}")
        typer.echo(f"report: pathweave compare --report {out}")
    if outcome.failed:
        raise typer.Exit(EXIT_FAILED)


def _submit(grid: Path, out: Path, only: list[str], directory: Path, as_json: bool) -> None:
    from pathweave.compare.grid import load_grid
    from pathweave.compare.submission import submit

    file = submit(load_grid(grid), out, directory, only)
    typer.echo(json.dumps(str(file)) if as_json else f"wrote {file}")


def _report(directory: Path, out: Path, as_json: bool) -> None:
    from pathweave.compare.grid_report import write_report
    from pathweave.compare.tables import markdown

    report = write_report(directory, out)
    if as_json:
        typer.echo(json.dumps([str(file) for file in report.files]))
        return
    for table in report.means:
        typer.echo(f"{markdown(table, get_terminal_size().columns)}\n")
    for file in report.files:
        typer.echo(f"wrote {file}")
