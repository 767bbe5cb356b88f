"""``pathweave cache``: what is in the cache of features, and clearing it."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class What(StrEnum):
    """What is cleared: the older form, or all."""

    OLD = "old"
    ALL = "all"


def cache(
    clear: Annotated[
        What | None,
        typer.Option(help="Delete all features, or those of the older form, a file a medium."),
    ] = None,
    add: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Read the features of a directory of encode, too."),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Another directory than the shared cache.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how many media have features, and what they take; or clear them.

    Nothing is lost for good: what is missing is computed again.

    Example: pathweave cache --clear old
    """
    from pathweave.data.cache import FeatureCache
    from pathweave.storage.atomic import features_home

    found = FeatureCache(directory or features_home())
    if clear is What.ALL:
        found.clear()
    elif clear is What.OLD:
        found.clear_old()
    if add is not None:
        found.read_too(add)
    size = found.size()
    if as_json:
        typer.echo(json.dumps(size))
        return
    store, old = size["store"], size["old"]
    typer.echo(
        f"{size['directory']}: {store['media']:,} media, {store['bytes'] / 1e9:,.2f} GB in "
        f"{store['files']:,} files"
    )
    if old["files"]:
        typer.echo(
            f"of the older form: {old['media']:,} media, {old['bytes'] / 1e9:,.2f} GB in as many "
            "files; --clear old deletes them"
        )
    for place in size["elsewhere"]:
        typer.echo(f"read too: {place}")
