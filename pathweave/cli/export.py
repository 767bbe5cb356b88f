"""``pathweave export``: paths as files in the released layout."""

import json
from pathlib import Path
from typing import Annotated

import typer


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run, or what import wrote.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new directory.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write one file per path in the released layout, as safetensors; import reads them back.

    Example: pathweave export runs/released --out exported
    """
    from pathweave.released import export_directory

    report = export_directory(directory, out)
    if as_json:
        typer.echo(json.dumps(report))
        return
    for name, file in report["files"].items():
        typer.echo(f"{name}: {out / file} ({report['keys'][name]} tensors)")
    for note in report["notes"]:
        typer.echo(f"note: {note}")
