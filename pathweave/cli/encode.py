"""``pathweave encode``: features of a corpus, computed ahead of training."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.trust import TrustCode


def encode(
    manifests: Annotated[
        list[Path],
        typer.Argument(metavar="MANIFEST...", help="Manifests (.jsonl, .parquet, .tar, .yaml)."),
    ],
    recipe: Annotated[
        Path, typer.Option(help="A recipe that declares the modalities: a file, or one that ships.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Directory of the features; by default the shared cache.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Ray that does the work; local starts one here."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; by default 1, on a Ray one a GPU, or else a core."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Encode all media of manifests; the same command goes on where one was stopped.

    Training finds the features in the shared cache; in another directory after pathweave cache
    --add DIR. The exit code is 1 if media failed; DIR/failures.jsonl lists them.

    Example: pathweave encode corpus.jsonl --recipe mcl_mini --out features --workers 4
    """
    from pathweave.recipe.reading import load_recipe
    from pathweave.storage.atomic import features_home
    from pathweave.train.corpus import encode_corpus

    place = out or features_home()
    done = encode_corpus(load_recipe(recipe), manifests, place, ray, workers, trust_code, as_json)
    if as_json:
        typer.echo(json.dumps(done))
    else:
        store = done["store"]
        typer.echo(
            f"{done['rows']:,} rows: {done['encoded']:,} media encoded, {done['found']:,} found, "
            f"{done['failed']:,} failed" + (f": {done['failures']}" if done["failed"] else "")
        )
        typer.echo(
            f"{place}: {store['media']:,} media, {store['bytes'] / 1e9:,.2f} GB in "
            f"{store['files']:,} files"
        )
    raise typer.Exit(1 if done["failed"] else 0)
