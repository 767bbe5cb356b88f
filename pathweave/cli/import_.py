"""``pathweave import``: published checkpoints as a connector and paths."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pathweave.cli.trust import TrustCode

MEANING = {
    "connector": "Q-Former and projector, the same in all files",
    "path": "what the stage trained: its path",
    "predecessor": "adapters of earlier stages, the same as in their files",
    "alias": "repeats an in-adapter; dropped",
    "future": "adapters of later stages, never trained; dropped",
    "no effect": "not used by the released code at this stage; dropped",
    "buffer": "constants; dropped",
    "other part": "encoder, language model or pretraining heads; not part of a connector",
}


def import_(  # noqa: PLR0913 (all are options of one command)
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of one run (.pth, .safetensors).")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new directory.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="Recipe of the run, with its base: DIR becomes a run to ask and score."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Base to bind the paths to: a directory, or the id of one on a hub."),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Modalities in order, with commas; checked against the gates."),
    ] = None,
    quirks: Annotated[
        bool | None,
        typer.Option(
            help="Compute what the released code computes where it departs from its plan.",
            show_default="what the files say, else yes",
        ),
    ] = None,
    heads: Annotated[
        int | None,
        typer.Option(min=1, help="Heads of the Q-Former.", show_default="width / 64, as in BERT"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    trust_code: TrustCode = False,
) -> None:
    """Read checkpoints of X-InstructBLIP, BLIP-2 (LAVIS) or the stages of PathWeave.

    All files must share one Q-Former; stages are given together, in any order, and the image file
    of X-InstructBLIP may be given with them. Every other file of X-InstructBLIP has a Q-Former of
    its own: import it alone. Nothing in a file is run: a pickle of more than tensors is refused.

    Example: pathweave import image.pth video.pth audio.pth --recipe recipe.yaml --out runs/released
    """
    from pathweave.errors import RecipeError
    from pathweave.recipe.reading import load_recipe
    from pathweave.released import import_files, write_import
    from pathweave.runs.loading import load_base

    if recipe is not None and base is not None:
        raise RecipeError("--recipe names the base, got --base as well; leave one of them out")
    names = None if order is None else [name.strip() for name in order.split(",")]
    imported = import_files(files, names, quirks, heads)
    run = None if recipe is None else load_recipe(recipe)
    bound = None if base is None else load_base(base)
    if run is not None:
        bound = load_base(run.base, run.seed, run.llm, run.quantise)
    report = write_import(imported, out, bound, run)
    if as_json:
        typer.echo(json.dumps(report))
    else:
        _show(report)
        typer.echo(f"{out}: {', '.join(imported.paths.names)}")


def _show(report: dict[str, Any]) -> None:
    """Print the number of keys of each role per file, the size of the paths, and the notes."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console

    from pathweave.display import WholeTable

    files, parameters = report["files"], report["parameters"]
    seen = [role for role in MEANING if any(role in file["keys"] for file in files)]
    table = WholeTable("keys", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for file in files:
        table.add_column(file["path"], justify="right")
    for role in seen:
        table.add_row(role, *[str(len(file["keys"].get(role, ()))) for file in files])
    totals = [sum(map(len, file["keys"].values())) for file in files]
    table.add_row("all", *map(str, totals), end_section=True)
    table.add_row("parameters", *[f"{sum(parameters[f['path']].values()):,}" for f in files])
    console = Console()
    console.print(table, crop=False)
    for line in [f"{role}: {MEANING[role]}" for role in seen]:
        console.print(line)
    for note in report["notes"]:
        console.print(f"note: {note}")
