"""``pathweave evaluate``: any path on any manifest."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.trust import TrustCode


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of a run.")],
    manifests: Annotated[
        list[Path] | None,
        typer.Argument(help="Manifests (.jsonl, .parquet); by default the recipe's test sets."),
    ] = None,
    metric: Annotated[
        str,
        typer.Option(
            help="For manifests given: exact_match, cider_d, ranking, ... (docs/metrics.md)."
        ),
    ] = "exact_match",
    path: Annotated[
        str | None,
        typer.Option(help="Read every medium with this path; by default each with its own."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Score only so many samples.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Score paths of a run on manifests.

    Example: pathweave evaluate runs/mcl_mini my-test.jsonl --metric exact_match
    """
    from pathweave.train.manifest_scores import evaluate_manifests, show_scores

    scores = evaluate_manifests(run, manifests or [], metric, path, limit, max_tokens, as_json)
    if scores is None:  # the first process tells
        return
    if as_json:
        typer.echo(json.dumps(scores))
    else:
        show_scores(scores)
