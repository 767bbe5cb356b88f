"""``pathweave estimate``: what a recipe costs, before anything is fetched."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.trust import TrustCode


def estimate(
    recipe: Annotated[Path, typer.Argument(help="The recipe: a YAML file, or one that ships.")],
    modalities: Annotated[
        int | None,
        typer.Option(min=1, help="Show growth up to so many paths; by default all stages'."),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Samples held at once; by default what the recipe says."),
    ] = None,
    text_tokens: Annotated[int, typer.Option(min=1, help="Tokens of cue and question.")] = 16,
    answer_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of an answer, trained on or written.")
    ] = 16,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; memory in bytes.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Show what each stage trains, how much memory and computation it takes.

    Everything follows from shapes: no weights are fetched and no data is read.

    Example: pathweave estimate pathweave_vicuna7b --batch-size 4
    """
    from rich.console import Console

    from pathweave.estimate.cost_tables import as_json as plain
    from pathweave.estimate.cost_tables import heading, tables
    from pathweave.estimate.estimate import estimate_recipe
    from pathweave.recipe.reading import load_recipe, parse_override

    loaded = load_recipe(recipe, dict(parse_override(text) for text in overrides or []))
    made = estimate_recipe(loaded, modalities, batch_size, text_tokens, answer_tokens)
    if as_json:
        typer.echo(json.dumps(plain(made)))
        return
    console = Console()
    console.print(heading(made), highlight=False)
    for table in tables(made):
        console.print(table, crop=False)
