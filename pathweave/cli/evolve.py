"""``pathweave evolve``: learn one modality after another."""

import json
from pathlib import Path
from typing import Annotated

import typer


def evolve(
    recipe: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    out: Annotated[Path, typer.Option(help="Directory of the run; resumed if it exists.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="All stages, in minutes: the recipe's quick section.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write DIR/tensorboard too (extra tensorboard).")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Learn the modalities of a recipe one at a time and score all of them after each.

    Ctrl-C saves and stops; the same command goes on from there.

    Example: pathweave evolve recipes/mcl_mini.yaml --out runs/mcl_mini
    """
    from pathweave.config import load_recipe, parse_override
    from pathweave.train.evolve import evolve_recipe

    values = dict(parse_override(text) for text in overrides or [])
    results = evolve_recipe(load_recipe(recipe, values, quick), out, as_json, tensorboard)
    if as_json and results is not None:
        typer.echo(json.dumps(results.model_dump(exclude_none=True)))
