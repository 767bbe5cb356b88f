"""``pathweave pack``, ``unpack``, ``add``, ``push``, ``pull``: paths as files, given and taken."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pathweave.cli.trust import TrustCode

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a run.")]
PathName = Annotated[str, typer.Argument(metavar="NAME", help="The path.")]
PackFile = Annotated[Path, typer.Argument(metavar="FILE", help="A pack.")]
Repository = Annotated[
    str,
    typer.Argument(
        metavar="REPO",
        help="A directory (there, or written ./DIR), or an id of the hub (owner/name).",
    ),
]
Alone = Annotated[
    bool,
    typer.Option(
        "--alone", help="Without the paths it builds on and the connector: for who has them."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Override a field of the pack's recipe, such as base=DIR.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def pack(
    run: Run,
    name: PathName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    alone: Alone = False,
    as_json: AsJson = False,
) -> None:
    """Write a path as one file, with the paths it builds on, scores, licences and proof.

    Example: pathweave pack runs/mcl_mini audio audio.pathweave
    """
    from pathweave.share import pack as pack_path
    from pathweave.storage.atomic import sha256_file

    contents = pack_path(run, name, file, alone)
    size, hash_ = file.stat().st_size, sha256_file(file)
    if as_json:
        about = {"file": str(file), "sha256": hash_, "num_bytes": size}
        told = contents.model_dump(mode="json", include={"path", "paths", "left_out", "base"})
        typer.echo(json.dumps(about | told))
        return
    typer.echo(f"{file}: {', '.join(contents.paths)} ({size / 1e6:.2f} MB, sha256 {hash_})")
    if contents.left_out or contents.connector == "left_out":
        left = [*contents.left_out, *(["the connector"] * (contents.connector == "left_out"))]
        typer.echo(f"left out: {', '.join(left)}")


def unpack(
    file: PackFile,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Write a pack as the directory of a run, which can be asked where its base is at hand.

    Example: pathweave unpack audio.pathweave runs/audio
    """
    from pathweave.recipe.reading import parse_override
    from pathweave.share import unpack as unpack_path

    arrival = unpack_path(file, out, dict(parse_override(text) for text in overrides or []))
    if as_json:
        typer.echo(json.dumps(arrival.as_json()))
        return
    typer.echo(f"{out}: {', '.join(arrival.added)}\nTry next: pathweave verify {out}")


def add(
    run: Run,
    file: PackFile,
    overrides: Overrides = None,
    as_json: AsJson = False,
    trust_code: TrustCode = False,
) -> None:
    """Add the paths of a pack to a run of the same base; they are proved before they are added.

    Example: pathweave add runs/mine audio.pathweave
    """
    from pathweave.recipe.reading import parse_override
    from pathweave.share import add as add_path

    arrival = add_path(run, file, dict(parse_override(text) for text in overrides or []))
    if as_json:
        typer.echo(json.dumps(arrival.as_json()))
        return
    for line in arrival.lines():
        typer.echo(line)


def push(
    run: Run,
    name: PathName,
    repository: Repository,
    alone: Alone = False,
    licence: Annotated[
        str,
        typer.Option(
            "--license", help="Licence of the path, as the hub names it, such as apache-2.0."
        ),
    ] = "other",
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository public, not private.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a path into a repository, with a model card: on the hub, or in a directory.

    Example: pathweave push runs/mcl_mini audio me/audio-path
    """
    from pathweave.share import push as push_path

    _show(push_path(run, name, repository, alone, licence, public).as_json(), as_json)


def pull(
    repository: Repository,
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Where to put the pack.")] = Path(),
    revision: Annotated[
        str | None, typer.Option(help="Commit, branch or tag on the hub; by default the newest.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Get a path from a repository, check it, and pin it by its hash.

    Example: pathweave pull me/audio-path
    """
    from pathweave.share import pull as pull_path

    _show(pull_path(repository, out, revision).as_json(), as_json)


def _show(pushed: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(pushed))
        return
    revision = f", revision {pushed['revision']}" if pushed["revision"] else ""
    typer.echo(f"{pushed['file']} of {pushed['repository']}: sha256 {pushed['sha256']}{revision}")
