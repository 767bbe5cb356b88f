"""``pathweave extend``: add a sense to a run, or to a base."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pathweave.cli.track import Track
from pathweave.cli.trust import TrustCode


def extend(
    run: Annotated[
        str, typer.Argument(metavar="RUN|BASE", help="Directory of a finished run, or a base.")
    ],
    recipe: Annotated[Path, typer.Argument(help="The recipe of what is added, a YAML file.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Extend a copy of the run here; needed with a base."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Override a field of the recipe."),
    ] = None,
    track: Track = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was added as JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Add a sense; verify the paths that are there before and after, and say what it cost.

    The recipe declares the new modality and its curriculum. Base, method and training are those of
    the run, but for what the modality says of its own training.

    Example: pathweave extend runs/mcl_mini motion/recipe.yaml --out runs/with_motion
    """
    from pathweave.errors import RunError
    from pathweave.recipe.reading import load_recipe, parse_override
    from pathweave.runs.run_directory import RunDirectory
    from pathweave.train.evolve import evolve_recipe
    from pathweave.train.extend import extend_run

    values = dict(parse_override(text) for text in overrides or [])
    if not RunDirectory(Path(run)).recipe_file.exists():
        if out is None:
            raise RunError(
                f"{run} must be the directory of a run, or a base with --out DIR for the run to "
                "be, got no recipe.json in it; add --out, or correct the directory"
            )
        first = load_recipe(recipe, {**values, "base": run})
        results = evolve_recipe(first, out, as_json, track or ())
        if as_json and results is not None:
            typer.echo(json.dumps(results.model_dump(exclude_none=True)))
        return
    extension = extend_run(Path(run), load_recipe(recipe, values), out, as_json, track or ())
    if extension is None:  # the first process tells
        return
    found = extension.as_json()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for stage in found["added"]:
        typer.echo(
            f"added {stage['modality']}: {stage['trained']:,} parameters trained "
            f"({stage['share_percent']:.1f} % of full tuning), {stage.get('seconds', 0):,.0f} s, "
            f"{stage.get('num_bytes', 0) / 1e6:.2f} MB"
        )
    for verdict in extension.verdicts:
        how = "bit-identical" if verdict.identical else "within tolerance"
        typer.echo(f"ok   {verdict.path}: {how}, before and after")
