"""``pathweave curve``: accuracy against the number of samples."""

import json
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated

import typer

from pathweave.cli.track import Track
from pathweave.cli.trust import TrustCode


def curve(  # noqa: PLR0913 (all are options of one command)
    recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file, or one that ships.")],
    samples: Annotated[
        str,
        typer.Option(
            metavar="N,N,...|all",
            help="Numbers of samples, of all training sets of the stage together; `all` last.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory of the curve; resumed if it exists.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="Take the stages before from this finished run, whose recipe RECIPE is, or to "
            "which it adds a modality; without it they are learnt once in --out."
        ),
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="What is learnt; by default the last stage of the recipe.")
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="N,N,...", help="Seeds: each draws samples and learns anew.")
    ] = "0,1,2",
    variants: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="'NAME: {FIELD: VALUE}'",
            help="Learn it this way too; may be repeated. The others are compared with the first; "
            "`usual: {}` is the recipe as it is.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Cells that run side by side, sharing the processors.")
    ] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and how far they are; do nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print curve.json.")] = False,
    track: Track = None,
    trust_code: TrustCode = False,
) -> None:
    """Learn a stage from more and more of its samples: how many do I need?

    What comes before is learnt once. Fewer samples are part of more, each answer in its share; one
    seed draws alike for all variants. Every cell takes as many steps as the recipe says: few
    samples are seen more often, so that the data change and not the length of training, for which
    the learning rates were chosen. The test sets of the recipe are scored; point them at validation
    sets while you still choose settings.

    Writes curve.json and curve.png. Ctrl-C saves and stops; the same command goes on from there.

    Example: pathweave curve motion/recipe.yaml --run runs/mcl_mini --samples 25,50,100,all --out
    runs/motion_curve
    """
    from pathweave.cli import EXIT_FAILED, EXIT_INTERRUPTED
    from pathweave.compare.curve import (
        load_curve,
        parse_samples,
        parse_seeds,
        parse_variants,
        run_curve,
    )
    from pathweave.compare.curve_report import write_curve_report
    from pathweave.compare.run_grid import state_of, state_table
    from pathweave.compare.tables import markdown
    from pathweave.recipe.reading import parse_override
    from pathweave.train.stop import Interrupted

    values = dict(parse_override(text) for text in overrides or [])
    numbers, known_seeds = parse_samples(samples), parse_seeds(seeds)
    declared = load_curve(
        recipe, numbers, known_seeds, parse_variants(variants or []), values, stage, run
    )
    if dry_run:
        states = [state_of(cell, out) for cell in declared.grid.cells]
        if as_json:
            typer.echo(json.dumps([{"cell": s.cell.name, "is_done": s.is_done} for s in states]))
        else:
            typer.echo(markdown(state_table(states), get_terminal_size().columns))
        return
    try:
        outcome = run_curve(declared, out, jobs, quiet=as_json, track=track or ())
    except Interrupted as stop:
        typer.echo(f"{stop}; run the same command again to go on", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from stop
    for name, message in outcome.failed.items():
        typer.echo(f"failed {name}: {message}", err=True)
    if outcome.done:
        report = write_curve_report(declared, out)
        typer.echo(json.dumps(report.tree) if as_json else report.text(get_terminal_size().columns))
    if outcome.failed:
        raise typer.Exit(EXIT_FAILED)
