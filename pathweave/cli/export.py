"""``pathweave export``: paths as files in the released layout, or one as a LoRA of peft."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pathweave.errors import PathError


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A run, or what import wrote.")],
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="With --lora: the path.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new directory for all paths, in the released layout."),
    ] = None,
    lora: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new directory for one path, as a LoRA (docs/lora.md)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Write paths in the form that other programs read.

    --out writes one file per path in the released layout, as safetensors; import reads them back.
    --lora writes what one path of scope prompt does inside the language model as an adapter of
    peft, and the whole path beside it: a LoRA holds nothing that is done before the language model.

    Example: pathweave export runs/mine audio --lora audio-lora
    """
    if (out is None) == (lora is None) or (name is None) == (lora is not None):
        raise PathError(
            "export must be given either --out alone, or --lora and the name of a path, got "
            f"name {name}, --out {out}, --lora {lora}; see pathweave export --help"
        )
    if lora is not None and name is not None:
        from pathweave.released import export_lora

        made = export_lora(directory, name, lora)
        if as_json:
            typer.echo(json.dumps(made))
            return
        ranks = ", ".join(f"{count} of rank {rank}" for rank, count in made["ranks"].items())
        typer.echo(f"{name}: {lora} ({made['layers']} layers: {ranks}) for {made['base_model']}")
        typer.echo(
            f"loaded by peft; logits of up to {made['largest']:.3g} differ by "
            f"{made['difference']:.1g} at most ({made['dtype']})"
        )
    elif out is not None:
        from pathweave.released import export_directory

        report = export_directory(directory, out)
        if as_json:
            typer.echo(json.dumps(report))
            return
        for path, file in report["files"].items():
            typer.echo(f"{path}: {out / file} ({report['keys'][path]} tensors)")
        for note in report["notes"]:
            typer.echo(f"note: {note}")
