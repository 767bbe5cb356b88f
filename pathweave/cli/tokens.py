"""``pathweave tokens``: prompts of a manifest as embeddings, for batches in another engine."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.trust import TrustCode

SHOWN = 5


def tokens(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    manifest: Annotated[Path, typer.Argument(help="Manifest (.jsonl, .parquet).")],
    out: Annotated[Path, typer.Option(help="Directory of the shards.")],
    path: Annotated[
        str | None,
        typer.Option(help="Read every medium with this path; by default each with its own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Write what the language model of a run reads for each sample of a manifest.

    The shards go to an engine such as vLLM (docs/engines.md). The same command goes on where one
    was stopped.

    Example: pathweave tokens runs/mcl_mini my-corpus.jsonl --out tokens
    """
    from pathweave.serve.token_shards import write_token_shards

    written = write_token_shards(run, manifest, out, path, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(written))
        return
    bad = written["bad"]
    typer.echo(f"{written['samples']:,} samples in {written['shards']:,} shards, {len(bad):,} bad")
    for line in bad[:SHOWN]:
        typer.echo(f"  bad: {line}")
    if len(bad) > SHOWN:
        typer.echo(f"  and {len(bad) - SHOWN:,} more: --json lists all")
