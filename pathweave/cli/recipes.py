"""``pathweave recipes``: what ships with the package."""

import json
from typing import Annotated

import typer


def recipes(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the files.")] = False,
) -> None:
    """List the recipes and grids that ship; give a name wherever a file of that kind is asked for.

    A recipe of your own may change one of them: `extends: mcl_mini`.

    Example: pathweave recipes
    """
    from rich.console import Console

    from pathweave.display import WholeTable
    from pathweave.recipe.shipped import SHIPPED, describe_shipped

    found = describe_shipped()
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = WholeTable("name", "for", "what it is", box=None, padding=(0, 2, 0, 0))
    for each in found:
        table.add_row(each["name"], each["command"], each["title"])
    Console().print(table, crop=False)
    typer.echo(f"\nrecipes/, data/ and examples/ are in {SHIPPED}")
