"""``pathweave evolve``: learn one modality after another."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.track import Track
from pathweave.cli.trust import TrustCode


def evolve(  # noqa: PLR0913 (all are options of one command)
    recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file, or one that ships.")],
    out: Annotated[Path, typer.Option(help="Directory of the run; resumed if it exists.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="All stages, in minutes: the recipe's quick section.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe."),
    ] = None,
    track: Track = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would happen and what is missing; do nothing."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
    trust_code: TrustCode = False,
    as_child: Annotated[
        bool,
        typer.Option("--stop-with-parent", hidden=True, help="Stop when standard input ends."),
    ] = False,
) -> None:
    """Learn the modalities of a recipe one at a time and score all of them after each.

    Ctrl-C saves and stops; the same command goes on from there. With --dry-run nothing is loaded,
    fetched or written, and the exit code is 1 if something is missing.

    Example: pathweave evolve mcl_mini --out runs/mcl_mini
    """
    from pathweave.recipe.reading import load_recipe, parse_override
    from pathweave.train.stop import stop_with_parent

    if as_child:
        stop_with_parent()
    values = dict(parse_override(text) for text in overrides or [])
    run = load_recipe(recipe, values, quick)
    if dry_run:
        from pathweave.train.dry_run import make_plan
        from pathweave.train.dry_run_report import lines

        plan = make_plan(run, out)
        typer.echo(json.dumps(asdict(plan)) if as_json else "\n".join(lines(plan)))
        raise typer.Exit(1 if plan.problems else 0)
    from pathweave.train.evolve import evolve_recipe

    results = evolve_recipe(run, out, as_json, track or ())
    if as_json and results is not None:
        typer.echo(json.dumps(results.model_dump(exclude_none=True)))
